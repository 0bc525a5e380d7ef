"""The chat frame of Qwen3 around turns of text and pictures, as text and as ids.

    <|im_start|>user\n<|vision_start|><|image_pad|>...<|vision_end|>QUESTION<|im_end|>\n
    <|im_start|>assistant\nANSWER<|im_end|>\n

Only the frame holds added tokens; what a turn says is always plain text. Reasoning ("thinking")
follows the published Qwen3 template: "on" lets the model write `<think>`, "off" puts an empty
block in front of the answer, "none" has no such block at all (Instruct-2507 and our own models).
Ref: the Qwen3 chat template; tools are not covered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal

from mm.text.tokenizer import Tokenizer

IMAGE_MARKER = "<image>"
ROLES = ("system", "user", "assistant")
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")  # either ends an answer
EMPTY_THINK = "<think>\n\n</think>\n\n"

Thinking = Literal["none", "off", "on"]
Turn = tuple[str, str]


@dataclass(frozen=True)
class Piece:
    """A stretch of the rendered chat.

    Args:
        text: what it says.
        special: the text is made of added tokens (with plain text between them, if any).
        answer: the model is to produce it, so that training counts it.
    """

    text: str
    special: bool = False
    answer: bool = False


@dataclass(frozen=True)
class EncodedChat:
    """A chat as ids; `labels_mask` is True on the assistant's answers and their `<|im_end|>`."""

    input_ids: list[int]
    labels_mask: list[bool]


def stop_token_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that end an answer."""
    return [tokenizer.token_id(token) for token in STOP_TOKENS]


def _image(num_tokens: int) -> Piece:
    return Piece("<|vision_start|>" + "<|image_pad|>" * num_tokens + "<|vision_end|>", special=True)


def _check(turns: Sequence[Turn], num_image_tokens: Sequence[int]) -> None:
    for role, _ in turns:
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}; known: {', '.join(ROLES)}")
    markers = sum(text.count(IMAGE_MARKER) for role, text in turns if role != "assistant")
    if markers != len(num_image_tokens):
        raise ValueError(
            f"the turns hold {markers} {IMAGE_MARKER} markers for {len(num_image_tokens)} "
            "pictures: write one marker at the place of each picture"
        )


def _said(text: str, sizes: Iterator[int]) -> Iterator[Piece]:
    """A system's or user's text, with its pictures."""
    first, *rest = text.split(IMAGE_MARKER)
    if first:
        yield Piece(first)
    for part in rest:
        yield _image(next(sizes))
        if part:
            yield Piece(part)


def _split_reasoning(text: str) -> tuple[str, str]:
    """Reasoning and answer of an assistant's text, as the published template takes them apart."""
    if "</think>" not in text:
        return "", text
    reasoning = text.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
    return reasoning, text.split("</think>")[-1].lstrip("\n")


def _answered(text: str, thinking: Thinking, is_final: bool, in_reply: bool) -> Iterator[Piece]:
    """An assistant's text. `in_reply`: after the last user turn; `is_final`: the last turn."""
    if thinking == "none":
        yield Piece(text, answer=True)
        return
    reasoning, answer = _split_reasoning(text)
    if in_reply and (is_final or reasoning):
        # "off" gives the empty block to the model, so that it isn't asked to write it.
        written = thinking == "on" or bool(reasoning.strip("\n"))
        yield Piece("<think>", special=True, answer=written)
        yield Piece("\n" + reasoning.strip("\n") + "\n", answer=written)
        yield Piece("</think>", special=True, answer=written)
        yield Piece("\n\n", answer=written)
        answer = answer.lstrip("\n")
    yield Piece(answer, answer=True)


def render(
    turns: Sequence[Turn],
    *,
    num_image_tokens: Sequence[int] = (),
    thinking: Thinking = "none",
    add_generation_prompt: bool = False,
) -> list[Piece]:
    """Render turns to pieces; `"".join(piece.text for piece in pieces)` is the prompt as text.

    Args:
        turns: (role, text) pairs; system and user texts hold one `<image>` at each picture's place.
        num_image_tokens: how many tokens each picture takes, in order.
        thinking: see the module.
        add_generation_prompt: end with the opened assistant turn.

    Raises:
        ValueError: markers and pictures differ in number (what follows would look at the wrong
            picture), or a role is unknown.
    """
    _check(turns, num_image_tokens)
    sizes = iter(num_image_tokens)
    pieces: list[Piece] = []
    last_user = max((i for i, (role, _) in enumerate(turns) if role == "user"), default=len(turns))
    for index, (role, text) in enumerate(turns):
        pieces += [Piece("<|im_start|>", special=True), Piece(f"{role}\n")]
        if role == "assistant":
            pieces += _answered(text, thinking, index == len(turns) - 1, index > last_user)
        else:
            pieces += _said(text, sizes)
        pieces += [Piece("<|im_end|>", special=True, answer=role == "assistant"), Piece("\n")]
    if add_generation_prompt:
        pieces += [Piece("<|im_start|>", special=True), Piece("assistant\n")]
        if thinking == "off":
            pieces.append(Piece(EMPTY_THINK, special=True))
    return pieces


def encode_pieces(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> EncodedChat:
    """Encode pieces; plain neighbours with the same `answer` flag are one text, as when read back.

    The assistant's header and its answer are encoded apart, because generation starts between
    them: the model must be trained on the tokens it will have to produce.
    """
    ids: list[int] = []
    mask: list[bool] = []
    for (special, answer), group in groupby(
        pieces, key=lambda piece: (piece.special, piece.answer)
    ):
        part = tokenizer.encode("".join(piece.text for piece in group), allow_special=special)
        ids += part
        mask += [answer] * len(part)
    return EncodedChat(ids, mask)


def encode_chat(
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    *,
    num_image_tokens: Sequence[int] = (),
    thinking: Thinking = "none",
    add_generation_prompt: bool = False,
) -> EncodedChat:
    """`render`, then ids. Arguments and errors are those of `render`."""
    pieces = render(
        turns,
        num_image_tokens=num_image_tokens,
        thinking=thinking,
        add_generation_prompt=add_generation_prompt,
    )
    return encode_pieces(tokenizer, pieces)


@lru_cache(maxsize=4)
def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int], int]:
    """Ids from question to answer, ids after the answer, and the id of the picture's place."""
    opened = tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n", allow_special=True)
    closed = tokenizer.encode("<|im_end|>\n", allow_special=True)
    return opened, closed, tokenizer.token_id("<|image_pad|>")


def encode_prefix_and_turns(
    tokenizer: Tokenizer, turns: Sequence[Turn], num_image_tokens: int
) -> tuple[list[int], list[tuple[list[int], list[bool]]]]:
    """Encode one picture with several questions that don't see each other.

    `prefix + item` is what `encode_chat` gives for that question alone (thinking "none"), so a
    trainer computes the picture once and lets each item attend to the prefix and itself only.

    Args:
        turns: ("user", "<image>Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2"), ...
        num_image_tokens: how many tokens the picture takes.

    Returns:
        The prefix, and for each question its ids and answer mask (answer and `<|im_end|>`).
    """
    roles = [role for role, _ in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError(f"turns must go user, assistant, user, assistant, ...; got {roles}")
    if not turns[0][1].startswith(IMAGE_MARKER):
        raise ValueError(f"the first question must start with {IMAGE_MARKER}")
    questions = [text for _, text in turns[::2]]
    questions[0] = questions[0][len(IMAGE_MARKER) :]
    if any(IMAGE_MARKER in question for question in questions):
        raise ValueError(
            f"one picture has one {IMAGE_MARKER} marker, in front of the first question"
        )
    opened, closed, pad = _frame(tokenizer)
    prefix = tokenizer.encode("<|im_start|>user\n<|vision_start|>", allow_special=True)
    prefix += [pad] * num_image_tokens
    prefix.append(tokenizer.token_id("<|vision_end|>"))
    items: list[tuple[list[int], list[bool]]] = []
    for question, (_, answer) in zip(questions, turns[1::2], strict=True):
        asked = tokenizer.encode(question) + opened
        said = tokenizer.encode(answer)
        mask = [False] * len(asked) + [True] * (len(said) + 1) + [False] * (len(closed) - 1)
        items.append((asked + said + closed, mask))
    return prefix, items
