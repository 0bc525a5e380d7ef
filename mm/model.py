"""The model as a person uses it: a picture and perhaps a question go in, words come out.

Every picture passes the privacy door; nothing of it is kept but the pixel values.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from PIL.Image import Exif, Image
from torch import Tensor

from mm.checkpoints import native
from mm.errors import CheckpointError, ConfigError, UsageError
from mm.generate import Generated, GenerationConfig, check_length, generate
from mm.generate import stream as stream_tokens
from mm.privacy.door import open_image
from mm.text.chat import IMAGE_MARKER, Turn, encode_chat, stop_token_ids
from mm.text.tokenizer import StreamDecoder, Tokenizer
from mm.vlm import VisionLanguageModel

ASSETS = Path(__file__).with_name("assets")
SHIPPED = "scenes-12m"
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
ORIENTATION_TAG = 0x0112
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Options(TypedDict, total=False):
    """How to choose words; see `mm.generate.GenerationConfig`. Default: greedy."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int


PictureLike = str | os.PathLike[str] | bytes | Image


@dataclass(frozen=True)
class Request:
    """A prompt with its pictures, through the door and ready to run.

    Args:
        input_ids: the prompt, image placeholders included.
        pixel_values: float32 `[K, 3, S, S]`, or None without pictures.
    """

    input_ids: list[int]
    pixel_values: Tensor | None


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Args:
        text: the answer.
        confidence: the probability that the model itself gives this whole answer: the product of
            its tokens' probabilities, the end included (not calibrated; long answers score lower).
        declined: the answer is the sentence by which this model says that it can't tell.
        tokens: how many tokens the answer took.
        complete: the model ended the answer itself, rather than being cut off.
    """

    text: str
    confidence: float
    declined: bool
    tokens: int
    complete: bool


def pick_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:N" into a device.

    Raises:
        UsageError: no such word, or no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:N")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if count == 0:
        raise UsageError(f"device {name!r} was asked for, but PyTorch sees no GPU: use 'cpu'")
    if index and int(index) >= count:
        raise UsageError(f"device {name!r} was asked for, but the last one is '{kind}:{count - 1}'")
    return torch.device(name)


class Model:
    """A vision-language model with its tokenizer and its settings.

    Args:
        vlm: the model, on its device.
        tokenizer: its tokenizer.
        config: the checkpoint's `config.json` (plain data).
    """

    def __init__(
        self, vlm: VisionLanguageModel, tokenizer: Tokenizer, config: dict[str, Any]
    ) -> None:
        self.vlm = vlm.eval()
        self.tokenizer = tokenizer
        self.config = config

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None, device: str = "auto", dtype: str | None = None
    ) -> "Model":
        """Read a model's folder; arguments and errors as `mm.load`."""
        if path is None:
            path = ASSETS / SHIPPED
            if not path.is_dir():
                raise CheckpointError(
                    f"the package's own model {SHIPPED} is missing from {ASSETS}: name a model's "
                    "folder, or train one with `python scripts/train.py experiment=scenes`"
                )
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
        place = pick_device(device)
        default = torch.bfloat16 if place.type == "cuda" else torch.float32
        loaded = native.load(path, device=place, dtype=DTYPES[dtype] if dtype else default)
        return cls(loaded.model, loaded.tokenizer, loaded.config)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.vlm.decoder.model.embed_tokens.weight.device

    @property
    def batch_size(self) -> int:
        """How many pictures to answer at a time, if nothing is said."""
        return 16 if self.device.type == "cpu" else 64

    @property
    def languages(self) -> list[str]:
        """Languages that this model captions in."""
        return list(self.config.get("task_prompts", {}).get("caption", {}))

    def caption_prompt(self, lang: str = "en") -> str:
        """The request for a caption that this model was trained with."""
        prompts = self.config.get("task_prompts", {}).get("caption", {})
        if lang not in prompts:
            known = ", ".join(prompts) or "none, so give a prompt"
            raise UsageError(f"no caption prompt for language {lang!r}; this model knows: {known}")
        return str(prompts[lang])

    def prepare(self, image: PictureLike, prompt: str) -> Request:
        """Bring a picture through the door, and put a request about it next to it.

        Args:
            image: a path, a file's bytes, or a PIL picture.
            prompt: what a user typed.

        Raises:
            mm.privacy.DoorError: it is no readable picture, or is too large.
            UsageError: the request is empty, or longer than the model reads.
        """
        if not prompt.strip():
            raise UsageError('the question is empty: ask for something, as "What is this?"')
        if IMAGE_MARKER in prompt:
            raise UsageError(f"the question holds {IMAGE_MARKER}, which marks a picture: remove it")
        return self.prepare_turns([("user", IMAGE_MARKER + prompt)], [image])

    def prepare_turns(self, turns: Sequence[Turn], images: Sequence[PictureLike]) -> Request:
        """Bring a conversation and its pictures to the model's form.

        Args:
            turns: (role, text) pairs, the last one the user's, with one `<image>` at the place of
                each picture.
            images: the pictures, in order.
        """
        pictures = [self._open(image) for image in images]
        ids = encode_chat(
            self.tokenizer,
            turns,
            num_image_tokens=[self.vlm.num_image_tokens(p.height, p.width) for p in pictures],
            thinking=self.config.get("chat", {}).get("thinking", "none"),
            add_generation_prompt=True,
        ).input_ids
        check_length(self.vlm, ids)
        return Request(ids, self.vlm.encoder.preprocess(pictures) if pictures else None)

    def _open(self, image: PictureLike) -> Image:
        return open_image(_file_of(image) if isinstance(image, Image) else image)

    @overload
    def caption(
        self,
        image: PictureLike,
        lang: str = "en",
        prompt: str | None = None,
        *,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> str: ...
    @overload
    def caption(
        self,
        image: PictureLike,
        lang: str = "en",
        prompt: str | None = None,
        *,
        stream: Literal[True],
        **options: Unpack[Options],
    ) -> Iterator[str]: ...
    def caption(
        self,
        image: PictureLike,
        lang: str = "en",
        prompt: str | None = None,
        *,
        stream: bool = False,
        **options: Unpack[Options],
    ) -> str | Iterator[str]:
        """Describe a picture.

        Args:
            image: a path, a file's bytes, or a PIL picture.
            lang: language of the request, if no prompt is given.
            prompt: another request than the one the model was trained with.
            stream: return the text in parts, as they come.
        """
        request = self.caption_prompt(lang) if prompt is None else prompt
        if stream:
            return self.stream(self.prepare(image, request), **options)
        return self.answer(image, request, **options).text

    @overload
    def ask(
        self,
        image: PictureLike,
        question: str,
        *,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> str: ...
    @overload
    def ask(
        self,
        image: PictureLike,
        question: str,
        *,
        stream: Literal[True],
        **options: Unpack[Options],
    ) -> Iterator[str]: ...
    def ask(
        self,
        image: PictureLike,
        question: str,
        *,
        stream: bool = False,
        **options: Unpack[Options],
    ) -> str | Iterator[str]:
        """Answer a question about a picture; arguments as `caption`."""
        if stream:
            return self.stream(self.prepare(image, question), **options)
        return self.answer(image, question, **options).text

    def caption_many(
        self,
        images: Sequence[PictureLike],
        lang: str = "en",
        prompt: str | None = None,
        batch_size: int | None = None,
        **options: Unpack[Options],
    ) -> list[str]:
        """Describe several pictures, in batches; arguments as `caption` and `answer_many`."""
        request = self.caption_prompt(lang) if prompt is None else prompt
        answers = self.answer_many(images, [request] * len(images), batch_size, **options)
        return [answer.text for answer in answers]

    def answer(self, image: PictureLike, prompt: str, **options: Unpack[Options]) -> Answer:
        """Answer one request about one picture, with confidence."""
        return self.answer_many([image], [prompt], **options)[0]

    def answer_many(
        self,
        images: Sequence[PictureLike],
        prompts: Sequence[str],
        batch_size: int | None = None,
        **options: Unpack[Options],
    ) -> list[Answer]:
        """Answer one request about each picture.

        Args:
            images: the pictures.
            prompts: as many requests.
            batch_size: pictures at a time, see `batch_size`. Answers do not depend on it.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures for {len(prompts)} prompts: give as many")
        size = batch_size or self.batch_size
        answers: list[Answer] = []
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            pairs = zip(images[part], prompts[part], strict=True)
            answers += self.run([self.prepare(*pair) for pair in pairs], **options)
        return answers

    def run(self, requests: Sequence[Request], **options: Unpack[Options]) -> list[Answer]:
        """Answer prepared requests in one batch."""
        pixels = [r.pixel_values for r in requests if r.pixel_values is not None]
        try:
            rows = generate(
                self.vlm,
                [request.input_ids for request in requests],
                torch.cat(pixels) if pixels else None,
                self._generation(options),
            )
        except torch.OutOfMemoryError:
            raise UsageError(
                f"the GPU's memory is too small for {len(requests)} pictures at a time: "
                "lower the batch size, or use device 'cpu'"
            ) from None
        return [self._answer(row) for row in rows]

    def stream(self, request: Request, **options: Unpack[Options]) -> Iterator[str]:
        """Answer one prepared request, in parts as they come."""
        decoder = StreamDecoder(self.tokenizer)
        config = self._generation(options)
        started = False
        for token in stream_tokens(self.vlm, request.input_ids, request.pixel_values, config):
            part = decoder.push(token)
            part = part if started else part.lstrip()
            started = started or bool(part)
            if part:
                yield part
        if rest := decoder.flush():
            yield rest

    @torch.no_grad()
    def logits(self, input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        """Next-token logits `[B, T, V]`, float32, of tokens `[B, T]` and their pictures."""
        if pixel_values is not None:
            pixel_values = pixel_values.to(self.device)
        hidden = self.vlm.hidden(input_ids.to(self.device), pixel_values)
        return self.vlm.logits(hidden).float()

    def _generation(self, options: Options) -> GenerationConfig:
        settings = self.config.get("generation", {})
        stops = settings.get("eos_token_id")
        if stops is None:
            stops = stop_token_ids(self.tokenizer)
        values: dict[str, Any] = {"max_new_tokens": settings.get("max_new_tokens", 64), **options}
        if not values.get("temperature"):
            values["num_beams"] = settings.get("num_beams", 1)
        return GenerationConfig(
            stop_token_ids=tuple([stops] if isinstance(stops, int) else stops),
            num_valid_tokens=self.tokenizer.vocab_size,
            **values,
        )

    def _answer(self, row: Generated) -> Answer:
        text = self.tokenizer.decode(row.ids).strip()
        probs = row.token_probs + ([] if row.stop_prob is None else [row.stop_prob])
        return Answer(
            text=text,
            confidence=math.prod(probs),
            declined=text in self.config.get("decline", {}).values(),
            tokens=len(row.ids),
            complete=row.finish_reason == "stop",
        )


def _file_of(image: Image) -> bytes:
    """A PIL picture as a file's bytes, so that it takes the same way as any other."""
    upright = Exif()
    upright[ORIENTATION_TAG] = image.getexif().get(ORIENTATION_TAG, 1)
    buffer = BytesIO()
    (image if image.mode in PNG_MODES else image.convert("RGB")).save(
        buffer, "PNG", compress_level=1, exif=upright
    )
    return buffer.getvalue()
