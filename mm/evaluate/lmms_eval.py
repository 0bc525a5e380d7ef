"""mm's models in lmms-eval: `lmms-eval --model mm --model_args pretrained=DIR --tasks ...`.

Installing mm beside it is enough, as the entry point `lmms_eval.models` names `manifests`. The
class is made when it is asked for, since its base is lmms-eval's: `pip install 'mm[lmms-eval]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mm.errors import UsageError
from mm.model import Model, Options, PictureLike, Request
from mm.text.chat import IMAGE_MARKER

_NAME = "Lmm"


def manifests() -> Any:  # a list of lmms-eval's ModelManifest
    """Say to lmms-eval which class is its model `mm`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id="mm", simple_class_path=f"{__name__}.{_NAME}")]


def __getattr__(name: str) -> Any:
    if name == _NAME:
        return _model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def answers(
    model: Model, asked: Sequence[tuple[str, Sequence[PictureLike], dict[str, Any]]]
) -> list[str]:
    """Answer (text, pictures, lmms-eval's generation arguments), those of like arguments together.

    Without a temperature above 0 words are chosen greedily; `until` ends an answer.
    """
    said: dict[int, str] = {}
    alike: dict[str, list[int]] = {}
    for number, (_, _, arguments) in enumerate(asked):
        alike.setdefault(repr(sorted(arguments.items())), []).append(number)
    for numbers in alike.values():
        options = _options(asked[numbers[0]][2])
        for start in range(0, len(numbers), model.batch_size):
            part = numbers[start : start + model.batch_size]
            requests = [_request(model, asked[n][0], asked[n][1]) for n in part]
            found = model.run(requests, **options)
            said |= {n: answer.text for n, answer in zip(part, found, strict=True)}
    return [said[number] for number in range(len(asked))]


@torch.no_grad()
def likelihood(
    model: Model, text: str, pictures: Sequence[PictureLike], continuation: str
) -> tuple[float, bool]:
    """Log-probability of an answer, and whether greedy choice would give it."""
    request = _request(model, text, pictures)
    more = model.tokenizer.encode(continuation)
    if not more:
        return 0.0, True
    ids = torch.tensor([[*request.input_ids, *more]], device=model.device)
    features = None
    if request.pictures is not None:
        features = model.vlm.image_features(request.pictures.to(model.device))
    hidden = model.vlm.hidden(ids, image_features=features)[0, len(request.input_ids) - 1 : -1]
    scores = model.vlm.logits(hidden).float().log_softmax(-1)
    wanted = ids[0, len(request.input_ids) :]
    found = scores.gather(1, wanted[:, None]).sum()
    return float(found), bool((scores.argmax(-1) == wanted).all())


def _request(model: Model, text: str, pictures: Sequence[PictureLike]) -> Request:
    if text.count(IMAGE_MARKER) != len(pictures):  # else the task says where they belong
        text = IMAGE_MARKER * len(pictures) + text.replace(IMAGE_MARKER, "").strip()
    return model.prepare_turns([("user", text)], pictures)


def _options(arguments: dict[str, Any]) -> Options:
    options: Options = {"max_new_tokens": int(arguments.get("max_new_tokens") or 64)}
    until = arguments.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    if stops:
        options["stop_strings"] = tuple(stops)
    if arguments.get("do_sample") or arguments.get("temperature"):
        options["temperature"] = float(arguments.get("temperature") or 1.0)
        if arguments.get("top_p"):
            options["top_p"] = float(arguments["top_p"])
    elif stops:  # beams, where the model's folder wants them, end at no string
        options["temperature"] = 0.0
    return options


def _model_class() -> Any:  # a subclass of lmms-eval's `lmms`
    try:
        from lmms_eval.api.model import lmms
    except ImportError as error:
        raise UsageError("lmms-eval is missing: pip install 'mm[lmms-eval]'") from error

    class Lmm(lmms):  # type: ignore[misc]  # its base is unread
        """An mm checkpoint, or a published one that `mm.load` reads."""

        is_simple = True

        def __init__(
            self, pretrained: str, device: str = "auto", dtype: str | None = None, **_: Any
        ) -> None:
            super().__init__()
            self.model_name = pretrained
            self._mm = Model.load(pretrained, device, dtype)

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            asked = []
            for text, arguments, visuals, number, task, split in (r.args for r in requests):
                pictures = visuals(self.task_dict[task][split][number])
                asked.append((text, list(pictures or ()), dict(arguments)))
            return answers(self._mm, asked)

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            found = []
            for text, target, visuals, number, task, split in (r.args for r in requests):
                document = self.task_dict[task][split][number]
                wanted = target if isinstance(target, str) else target(document)
                found.append(likelihood(self._mm, text, list(visuals(document) or ()), wanted))
            return found

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            raise NotImplementedError("mm answers one round a question")

    return Lmm
