"""The adapter on lmms-eval's own base class where it is installed, else on a stand-in of it."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import mm
from mm.errors import UsageError
from mm.evaluate import lmms_eval as adapter
from tests import tiny_model


class Instance:
    """A request as lmms-eval hands it over: the arguments are what matters."""

    def __init__(self, *args: Any) -> None:
        self.args = args


class StandIn:
    """What the adapter uses of `lmms_eval.api.model.lmms` (version 0.7)."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    try:
        import lmms_eval.api.model  # noqa: F401
    except ImportError:
        api: Any = types.ModuleType("lmms_eval.api.model")
        api.lmms = StandIn
        for name in ("lmms_eval", "lmms_eval.api"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, "lmms_eval.api.model", api)
    tiny_model.save(tmp_path / "model")
    made = adapter.Lmm(pretrained=str(tmp_path / "model"), device="cpu", batch_size="1")
    pictures = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    documents = [{"image": picture, "answer": "a red cup"} for picture in pictures]
    made.task_dict = {"task": {"test": [*documents, {"answer": "yes"}]}}
    return made


def visuals(document: dict[str, Any]) -> list[Image.Image]:
    return [document["image"]] if "image" in document else []


def test_answers_are_those_of_the_model_alone(made: Any, tmp_path: Path) -> None:
    arguments = {"max_new_tokens": 5, "temperature": 0, "do_sample": False}
    longer = {**arguments, "max_new_tokens": 9}
    said = made.generate_until(
        [
            Instance("What is this?", arguments, visuals, 0, "task", "test"),
            Instance("<image>yes?", longer, visuals, 1, "task", "test"),
            Instance("What is this?", arguments, visuals, 2, "task", "test"),
        ]
    )
    model = mm.load(tmp_path / "model", device="cpu")
    first, second = (document["image"] for document in made.task_dict["task"]["test"][:2])
    assert said == [
        model.ask(first, "What is this?", max_new_tokens=5),
        model.ask(second, "yes?", max_new_tokens=9),
        model.ask(None, "What is this?", max_new_tokens=5),
    ]
    assert len(set(said)) == 3


def test_until_ends_an_answer(made: Any) -> None:
    (whole,) = made.generate_until(
        [Instance("Hello", {"max_new_tokens": 8, "until": ["\n\n\n"]}, visuals, 2, "task", "test")]
    )
    stop = whole[2]
    arguments = {"max_new_tokens": 8, "until": stop}
    (cut,) = made.generate_until([Instance("Hello", arguments, visuals, 2, "task", "test")])
    assert cut == whole[: whole.index(stop)].strip()


def test_log_likelihood_is_that_of_the_logits(made: Any) -> None:
    request = Instance("What?", lambda d: d["answer"], visuals, 0, "task", "test")
    ((found, is_greedy),) = made.loglikelihood([request])
    model = made._mm
    prepared = model.prepare(made.task_dict["task"]["test"][0]["image"], "What?")
    wanted = model.tokenizer.encode("a red cup")
    features = model.vlm.image_features(prepared.pictures)
    total = 0.0
    for place in range(len(wanted)):  # token by token
        ids = torch.tensor([[*prepared.input_ids, *wanted[:place]]])
        logits = model.vlm.logits(model.vlm.hidden(ids, image_features=features))[0, -1]
        total += float(logits.detach().log_softmax(-1)[wanted[place]])
    assert found == pytest.approx(total, abs=1e-4) and not is_greedy
    text = Instance("What?", "", visuals, 2, "task", "test")
    assert made.loglikelihood([text]) == [(0.0, True)]


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", None)
    with pytest.raises(UsageError, match=r"pip install 'mm\[lmms-eval\]'"):
        adapter.Lmm  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        adapter.Nothing  # noqa: B018


def test_the_manifest_leads_to_the_class() -> None:
    registry = pytest.importorskip("lmms_eval.models.registry_v2").ModelRegistryV2()
    (manifest,) = adapter.manifests()
    registry.register_manifest(manifest)
    assert registry.get_model_class("mm").__name__ == "Lmm"
    assert manifest.model_id == "mm"
    assert manifest.simple_class_path == "mm.evaluate.lmms_eval.Lmm"
