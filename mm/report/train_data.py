"""A data set to time training on: drawn, scrubbed through the privacy door, and packed from disk.

Its conversations show two pictures and go on over several questions and answers, of words drawn at
random, until they take about as many tokens as asked.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

from mm.data.shard_stream import ShardStreamConfig
from mm.data.shard_writer import ShardWriter
from mm.data.sources.jsonl import Source
from mm.privacy.policy import Policy
from mm.privacy.scrub import scrub
from mm.report.bench_scrub import make_pictures
from mm.text.tokenizer import Tokenizer
from mm.train.feeds import ShardFeed
from mm.vlm import VisionLanguageModel

WORDS = (
    "the a red blue green small large cup chair table lamp house tree river cat dog bird apple on"
    " under beside left right of behind two three stands lies and is with white round old new"
).split()
PICTURES = 2  # of a conversation
FRAME = 10  # tokens around the text of a question and its answer, about


def make_shards(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    conversations: int,
    tokens: int,
    image_tokens: int,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
) -> Path:
    """Draw JPEGs and conversations and scrub them; return the folder of shards.

    Args:
        folder: an empty one, for the raw files and the shards.
        conversations: how many, each with two pictures.
        tokens: that a conversation takes at most, pictures included; a fifth less at least.
        image_tokens: of a picture.
        size: width and height of the pictures.
    """
    rng = random.Random(seed)
    distinct = min(96, PICTURES * conversations)
    make_pictures(folder, distinct, size, b"")
    with open(folder / "conversations.jsonl", "w", encoding="utf-8") as file:
        for _ in range(conversations):
            room = rng.randint(tokens * 4 // 5, tokens) - PICTURES * image_tokens
            record = {
                "images": [f"{rng.randrange(distinct):04}.jpg" for _ in range(PICTURES)],
                "turns": _turns(rng, tokenizer, room),
                "tags": {},
            }
            file.write(json.dumps(record) + "\n")
    policy = Policy(name="bench", encoding="jpeg")
    with ShardWriter(folder / "shards", policy) as writer:
        records = Source(str(folder / "conversations.jsonl"))
        scrub(records, writer, policy, workers=min(8, os.cpu_count() or 1))
    return folder / "shards"


def _turns(rng: random.Random, tokenizer: Tokenizer, room: int) -> list[tuple[str, str]]:
    """Questions of some 10 words with answers of some 40 that take no more than `room` tokens."""
    turns: list[tuple[str, str]] = []
    room -= 2 * FRAME
    while room > 4 * FRAME or not turns:
        asked, said = " ".join(rng.choices(WORDS, k=10)), rng.choices(WORDS, k=40)
        room -= len(tokenizer.encode(asked)) + 2 * FRAME
        while len(tokenizer.encode(" ".join(said))) > max(room, 4):
            said = said[:-4]
        room -= len(tokenizer.encode(" ".join(said)))
        turns += [
            ("user", "<image>" * PICTURES * (not turns) + asked),
            ("assistant", " ".join(said)),
        ]
    return turns


def packed_feed(
    shards: Path, tokenizer: Tokenizer, model: VisionLanguageModel, rows: int, row_length: int
) -> ShardFeed:
    """What training reads: `rows` rows of `row_length` tokens a batch, without end."""
    stream = ShardStreamConfig(
        rows=rows,
        row_length=row_length,
        images_per_row=max(PICTURES, row_length // 16),
        turns="together",
    )
    return ShardFeed([shards], stream, tokenizer, model, seed=0, num_steps=2**20)
