"""Chats as ids: the rendered template through the tokenizer, with what a trainer needs to know.

The text of a chat is made in `mm.text.template`, its messages are described in `mm.text.messages`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from mm.errors import UsageError
from mm.text.frame import QWEN_FRAME, PictureFrame
from mm.text.messages import IMAGE_MARKER, ROLES, Message, MessageLike, Tool, ToolCall, Turn
from mm.text.template import Piece, Revision, Thinking, render, revision_of
from mm.text.tokenizer import Tokenizer

__all__ = [
    "IMAGE_MARKER",
    "ROLES",
    "EncodedChat",
    "Message",
    "MessageLike",
    "PictureFrame",
    "Piece",
    "Revision",
    "Thinking",
    "Tool",
    "ToolCall",
    "Turn",
    "encode_chat",
    "encode_pieces",
    "encode_prefix_and_turns",
    "render",
    "revision_of",
    "stop_token_ids",
]

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")  # either ends an answer


@dataclass(frozen=True)
class EncodedChat:
    """A chat as ids; `labels_mask` is True on the assistant's answers and their `<|im_end|>`."""

    input_ids: list[int]
    labels_mask: list[bool]


def stop_token_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that end an answer."""
    return [tokenizer.token_id(token) for token in STOP_TOKENS]


def encode_pieces(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> EncodedChat:
    """Encode pieces; plain neighbours with the same `answer` flag are one text, as when read back.

    The assistant's header and its answer are encoded apart, because generation starts between
    them: the model must be trained on the tokens it will have to produce. Every text is encoded
    once, so that the work grows with the chat's length and not with its square.
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
    messages: Sequence[MessageLike],
    *,
    tools: Sequence[Tool] = (),
    num_image_tokens: Sequence[int] = (),
    revision: Revision | None = None,
    thinking: Thinking = "none",
    add_generation_prompt: bool = False,
    trusted: Collection[str] = (),
    frame: PictureFrame = QWEN_FRAME,
) -> EncodedChat:
    """`render`, then ids. Arguments and errors are those of `render`."""
    pieces = render(
        messages,
        tools=tools,
        num_image_tokens=num_image_tokens,
        revision=revision,
        thinking=thinking,
        add_generation_prompt=add_generation_prompt,
        trusted=trusted,
        frame=frame,
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
        raise UsageError(f"turns must go user, assistant, user, assistant, ...; got {roles}")
    if not turns[0][1].startswith(IMAGE_MARKER):
        raise UsageError(f"the first question must start with {IMAGE_MARKER}")
    questions = [text for _, text in turns[::2]]
    questions[0] = questions[0][len(IMAGE_MARKER) :]
    if any(IMAGE_MARKER in question for question in questions):
        raise UsageError(
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
