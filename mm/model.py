"""The model as a person uses it: pictures and questions go in, words come out.

Every picture passes the privacy door; nothing of it is kept but the pixel values. A published text
model answers as well, only without pictures.
"""

import dataclasses
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from PIL.Image import Exif, Image
from torch import Tensor

from mm.errors import PictureError, UsageError
from mm.folder import ASSETS, SHIPPED, free_memory, read_folder
from mm.folder import memory_needed as memory_needed
from mm.folder import pick_device as pick_device
from mm.generate import Generated, GenerationConfig, check_length, generate, stream_text
from mm.privacy.door import open_image
from mm.refusal import Policy, Refusal
from mm.sampling import Decode
from mm.text.answer import ParsedAnswer, parse_answer, parse_ids
from mm.text.chat import IMAGE_MARKER, MessageLike, Tool, ToolCall, encode_chat, stop_token_ids
from mm.text.frame import PictureFrame
from mm.text.messages import as_messages
from mm.text.template import Revision, check_mode
from mm.text.tokenizer import Tokenizer
from mm.vlm import Pictures, VisionLanguageModel

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
ORIENTATION_TAG = 0x0112


class Options(TypedDict, total=False):
    """How to choose words; see `mm.sampling.GenerationConfig`. Default: what the model's folder
    says, else greedy. A temperature of 0 is greedy, whatever else the folder says."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop_strings: Sequence[str]
    prefill_chunk: int | None
    decode: Decode


Thinking = Literal["on", "off"]
PictureLike = str | os.PathLike[str] | bytes | Image


@dataclass(frozen=True)
class Request:
    """A prompt with its pictures, through the door and ready to run.

    Args:
        input_ids: the prompt, image placeholders included.
        pictures: preprocessed, or None without any.
        tools: what the model may call.
        revision: whose chat template frames the prompt; None writes plain text.
        question: what the user said last.
        num_pictures: of the whole chat.
        refusal: why this will not be answered, if so.
    """

    input_ids: list[int]
    pictures: Pictures | None
    tools: tuple[Tool, ...] = ()
    revision: Revision | None = None
    question: str = ""
    num_pictures: int = 0
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Args:
        text: the answer, without reasoning and tool calls.
        confidence: the probability that the model itself gives this whole answer: the product of
            its tokens' probabilities, the end included (not calibrated; long answers score lower).
        declined: the answer is the sentence by which this model says that it can't tell.
        tokens: how many tokens the answer took.
        complete: the model ended the answer itself, rather than being cut off.
        reasoning: what a thinking model wrote before it answered.
        tool_calls: the tools that it asks for.
        refused: the policy's word for why `text` is a refusal and no answer; "" of an answer.
    """

    text: str
    confidence: float
    declined: bool
    tokens: int
    complete: bool
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    refused: str = ""


class Model:
    """A vision-language model, or a text model, with its tokenizer and its settings.

    Args:
        vlm: the model, on its device.
        tokenizer: its tokenizer.
        config: the checkpoint's `config.json` (plain data). Read here are `chat` (`revision` and
            `thinking`, see `mm.text.template`; `image_start`, `image_token` and `image_end`, see
            `mm.text.frame`), `generation`, `task_prompts` and `decline`.
        folder: where it was read from, if it was.

    `policy` decides what is not answered (see `mm.refusal`); by default everything is, in scripts
    only what their `--policy` allows.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        tokenizer: Tokenizer,
        config: dict[str, Any],
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.vlm = vlm.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.folder = folder
        self.policy: Policy = Policy()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None, device: str = "auto", dtype: str | None = None
    ) -> "Model":
        """Read a model's folder; arguments and errors as `mm.load`."""
        return cls(*read_folder(path, device, dtype), ASSETS / SHIPPED if path is None else path)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.vlm.decoder.model.embed_tokens.weight.device

    @property
    def batch_size(self) -> int:
        """How many to answer at a time, if nothing is said: what half of the free memory holds.

        Counted are the caches of questions about pictures of 1920 x 1080.
        """
        most = 16 if self.device.type == "cpu" else 64
        free, sizes = free_memory(self.device), self.vlm.decoder.config
        if free is None:
            return most
        tokens = int(self.config.get("generation", {}).get("max_new_tokens", 64))
        tokens += self.vlm.num_image_tokens(1080, 1920) if self.sees else 0
        width = 2 * sizes.num_hidden_layers * sizes.num_key_value_heads * sizes.head_dim
        row = tokens * width * self.vlm.decoder.model.embed_tokens.weight.element_size()
        return max(1, min(most, free // 2 // row))

    @property
    def languages(self) -> list[str]:
        """Languages that this model captions in."""
        return list(self.config.get("task_prompts", {}).get("caption", {}))

    def caption_prompt(self, lang: str = "en") -> str:
        """The request for a caption that this model was trained with."""
        if not self.sees:
            raise UsageError("this model reads text only, and captions no pictures: ask it instead")
        prompts = self.config.get("task_prompts", {}).get("caption", {})
        if lang not in prompts:
            known = ", ".join(prompts) or "none, so give a prompt"
            raise UsageError(f"no caption prompt for language {lang!r}; this model knows: {known}")
        return str(prompts[lang])

    @property
    def sees(self) -> bool:
        """Whether this model takes pictures."""
        return self.vlm.sees

    def prepare(
        self, image: PictureLike | None, prompt: str, thinking: Thinking | None = None
    ) -> Request:
        """Bring a picture through the door, and put a request about it next to it.

        Args:
            image: a path, a file's bytes, or a PIL picture; None asks without a picture.
            prompt: what a user typed.
            thinking: as `prepare_turns`.

        Raises:
            mm.privacy.DoorError: it is no readable picture, or is too large.
            PictureError: the model can't take a picture of its size.
            UsageError: the request is empty, or longer than the model reads.
        """
        own = self.config.get("task_prompts", {}).get("caption", {}).values()
        if not prompt.strip() and (image is None or prompt not in own):  # some need no words
            raise UsageError('the question is empty: ask for something, as "What is this?"')
        if IMAGE_MARKER in prompt:
            raise UsageError(f"the question holds {IMAGE_MARKER}, which marks a picture: remove it")
        if image is None:
            return self.prepare_turns([("user", prompt)], thinking=thinking)
        return self.prepare_turns([("user", IMAGE_MARKER + prompt)], [image], thinking=thinking)

    def prepare_turns(
        self,
        messages: Sequence[MessageLike],
        images: Sequence[PictureLike] = (),
        tools: Sequence[Tool] = (),
        thinking: Thinking | None = None,
    ) -> Request:
        """Bring a conversation and its pictures to the model's form.

        Args:
            messages: (role, text) pairs or mappings with `role` and `content`, the last one the
                user's, with one `<image>` at the place of each picture.
            images: the pictures, in order.
            tools: definitions of what the model may call.
            thinking: "on" or "off"; None is what the model does by default.

        Raises:
            mm.privacy.DoorError: a picture is not readable, or is too large.
            PictureError: the model can't take a picture of this size.
            UsageError: messages of no known form, markers and pictures that differ in number,
                pictures for a text model, a chat longer than the model reads.
        """
        if images and not self.sees:
            raise UsageError("this model reads text only: ask it without a picture")
        opened = [self._open(image) for image in images]
        settings = self.config.get("chat", {})
        revision, mode = settings.get("revision"), thinking or settings.get("thinking", "none")
        if "revision" in settings and revision is None:
            warnings.warn(
                "the model's folder has no chat template that is known here: the prompt is framed"
                " as for 'instruct-2507', so its answers may be poor",
                stacklevel=2,
            )
        if revision is not None or mode != "none":
            revision, mode = check_mode(revision, mode)
        with _pictures_taken():
            sizes = [self.vlm.num_image_tokens(p.height, p.width) for p in opened]
        ids = encode_chat(
            self.tokenizer,
            messages,
            tools=tools,
            num_image_tokens=sizes,
            revision=revision,
            thinking=mode,
            add_generation_prompt=True,
            frame=PictureFrame.of(settings),
        ).input_ids
        check_length(self.vlm, ids)
        with _pictures_taken():
            pictures = self.vlm.encoder.preprocess(opened) if opened else None
        asked = [m.content for m in as_messages(messages) if m.role == "user"]
        question = asked[-1].replace(IMAGE_MARKER, "") if asked else ""
        refusal = self.policy.before(question, len(opened))
        return Request(ids, pictures, tuple(tools), revision, question, len(opened), refusal)

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
        if not self.sees:
            raise UsageError(
                "this model reads text only, and captions no pictures: use ask or chat"
            )
        request = self.caption_prompt(lang) if prompt is None else prompt
        if stream:
            return self.stream(self.prepare(image, request), **options)
        return self.answer(image, request, **options).text

    @overload
    def ask(
        self,
        image: PictureLike | None = None,
        question: str = "",
        *,
        thinking: Thinking | None = None,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> str: ...
    @overload
    def ask(
        self,
        image: PictureLike | None = None,
        question: str = "",
        *,
        thinking: Thinking | None = None,
        stream: Literal[True],
        **options: Unpack[Options],
    ) -> Iterator[str]: ...
    def ask(
        self,
        image: PictureLike | None = None,
        question: str = "",
        *,
        thinking: Thinking | None = None,
        stream: bool = False,
        **options: Unpack[Options],
    ) -> str | Iterator[str]:
        """Answer a question, about a picture or without one.

        Args:
            image: a path, a file's bytes, or a PIL picture; None for a question alone.
            question: what a user typed.
            thinking: "on" or "off"; None is what the model does by default.
            stream: return the text in parts, as they come, reasoning included.
        """
        request = self.prepare(image, question, thinking)
        if stream:
            return self.stream(request, **options)
        return self.run([request], **options)[0].text

    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        images: Sequence[PictureLike] = (),
        *,
        tools: Sequence[Tool] = (),
        thinking: Thinking | None = None,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> str: ...
    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        images: Sequence[PictureLike] = (),
        *,
        tools: Sequence[Tool] = (),
        thinking: Thinking | None = None,
        stream: Literal[True],
        **options: Unpack[Options],
    ) -> Iterator[str]: ...
    def chat(
        self,
        messages: Sequence[MessageLike],
        images: Sequence[PictureLike] = (),
        *,
        tools: Sequence[Tool] = (),
        thinking: Thinking | None = None,
        stream: bool = False,
        **options: Unpack[Options],
    ) -> str | Iterator[str]:
        """Go on with a conversation; arguments as `prepare_turns` and `ask`.

        For reasoning and tool calls apart from the text, give `prepare_turns`'s request to `run`.
        """
        request = self.prepare_turns(messages, images, tools, thinking)
        if stream:
            return self.stream(request, **options)
        return self.run([request], **options)[0].text

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

    def answer(self, image: PictureLike | None, prompt: str, **options: Unpack[Options]) -> Answer:
        """Answer one request about one picture (or none), with confidence."""
        return self.answer_many([image], [prompt], **options)[0]

    def answer_many(
        self,
        images: Sequence[PictureLike | None],
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

    def run(
        self,
        requests: Sequence[Request],
        seeds: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> list[Answer]:
        """Answer prepared requests in one batch.

        Args:
            requests: from `prepare` or `prepare_turns`.
            seeds: one a request; by default the option `seed` for each, which gives it the answer
                that it would have alone.
        """
        live = [n for n, request in enumerate(requests) if request.refusal is None]
        if len(live) < len(requests):
            own = None if seeds is None else [seeds[n] for n in live]
            answers = iter(self.run([requests[n] for n in live], own, **options) if live else ())
            return [next(answers) if r.refusal is None else _refused(r.refusal) for r in requests]
        pictures = [r.pictures for r in requests if r.pictures is not None]
        try:
            rows = generate(
                self.vlm,
                [request.input_ids for request in requests],
                Pictures.cat(pictures) if pictures else None,
                self._generation(options),
                seeds,
                tokenizer=self.tokenizer,
            )
        except torch.OutOfMemoryError:
            raise UsageError(
                f"the GPU's memory is too small for {len(requests)} "
                f"{'pictures' if pictures else 'prompts'} at a time: "
                "lower the batch size, or use device 'cpu'"
            ) from None
        return [self._answer(*pair) for pair in zip(requests, rows, strict=True)]

    def stream(self, request: Request, **options: Unpack[Options]) -> Iterator[str]:
        """Answer one prepared request, in parts as they come: one, if the policy reads answers."""
        if request.refusal is not None or self.policy.reads_answers:
            yield self.run([request], **options)[0].text
            return
        config = self._generation(options)
        ids, pictures, words = request.input_ids, request.pictures, self.tokenizer
        started = False
        for part in stream_text(self.vlm, ids, pictures, config, tokenizer=words):
            part = part if started else part.lstrip()
            started = started or bool(part)
            if part:
                yield part

    @torch.no_grad()
    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Next-token logits `[B, T, V]`, float32, of what the published processor makes.

        Args:
            input_ids: `[B, T]`, with as many placeholders as the pictures have tokens.
            attention_mask: `[B, T]`, 0 at padding, whose logits mean nothing.
            pixel_values: of the pictures, with what else it makes of them, such as
                `image_grid_thw`, in `inputs`; `mm_token_type_ids` are read off the ids instead.
        """
        inputs = {name: value for name, value in inputs.items() if "token_type_ids" not in name}
        features = None
        if pixel_values is not None:
            pictures = self.vlm.encoder.from_processor(pixel_values, **inputs)
            features = self.vlm.image_features(pictures.to(self.device))
        ids = input_ids.to(self.device)
        positions = mask = None
        if attention_mask is not None and not attention_mask.all():
            real = attention_mask.bool().to(self.device)
            positions = (real.cumsum(1) - 1).clamp(min=0)
            if self.vlm.decoder.config.mrope_section:
                rows = [row[own].tolist() for row, own in zip(ids, real, strict=True)]
                positions = positions.expand(3, -1, -1).clone()
                for row, placed in enumerate(self.vlm.place(rows, features)[0]):
                    positions[:, row, real[row]] = placed.to(self.device)
            causal = torch.ones(2 * ids.shape[1:], dtype=torch.bool, device=self.device).tril()
            mask = causal & real[:, None, None]
        hidden = self.vlm.hidden(
            ids, image_features=features, position_ids=positions, attention_mask=mask
        )
        return self.vlm.logits(hidden).float()

    def _generation(self, options: Options) -> GenerationConfig:
        settings = dict(self.config.get("generation", {}))
        stops, num_beams = settings.pop("eos_token_id", None), settings.pop("num_beams", 1)
        if stops is None:
            stops = stop_token_ids(self.tokenizer)
        values: dict[str, Any] = {"max_new_tokens": 64, **settings, **options}
        values["stop_strings"] = tuple(values.get("stop_strings", ()))
        config = GenerationConfig(
            stop_token_ids=tuple([stops] if isinstance(stops, int) else stops),
            num_valid_tokens=self.tokenizer.vocab_size,
            **values,
        )
        return dataclasses.replace(config, num_beams=num_beams) if config.is_plain else config

    def _answer(self, request: Request, row: Generated) -> Answer:
        said = self._parsed(request, row)
        text = said.content.strip()
        refusal = self.policy.after(request.question, text, request.num_pictures)
        if refusal is not None:
            return _refused(refusal)
        probs = row.token_probs + ([] if row.stop_prob is None else [row.stop_prob])
        return Answer(
            text=text,
            confidence=math.prod(probs),
            declined=text in self.config.get("decline", {}).values(),
            tokens=len(row.ids),
            complete=row.finish_reason == "stop",
            reasoning=said.reasoning,
            tool_calls=said.tool_calls,
        )

    def _parsed(self, request: Request, row: Generated) -> ParsedAnswer:
        """Take an answer apart, if the model writes more than text."""
        revision, text = request.revision, row.text or ""
        if revision is None:
            return ParsedAnswer("", text)
        if text != self.tokenizer.decode(row.ids):  # cut at a stop string
            return parse_answer(text, revision, request.tools)
        return parse_ids(self.tokenizer, row.ids, revision, request.tools)


def _refused(refusal: Refusal) -> Answer:
    return Answer(refusal.text, 0.0, False, 0, True, refused=refusal.kind)


@contextmanager
def _pictures_taken() -> Iterator[None]:
    """What an encoder says against a picture is for the person at the keyboard."""
    try:
        yield
    except ValueError as error:
        raise PictureError(str(error)) from None


def _file_of(image: Image) -> bytes:
    """A PIL picture as a file's bytes, so that it takes the same way as any other."""
    upright = Exif()
    upright[ORIENTATION_TAG] = image.getexif().get(ORIENTATION_TAG, 1)
    buffer = BytesIO()
    (image if image.mode in PNG_MODES else image.convert("RGB")).save(
        buffer, "PNG", compress_level=1, exif=upright
    )
    return buffer.getvalue()
