"""Train the small tokenizer on what is said about scenes, and on the texts of scrubbed shards.

Words that scenes show for reading are left out, so that they are spelled letter by letter.

Examples:
  python scripts/train_tokenizer.py --output mm/assets/scenes-12m/tokenizer.json
  python scripts/train_tokenizer.py --output t.json --shards data/easy_vqa_train --vocab-size 2048
"""

import argparse
import random
import sys
from itertools import chain
from pathlib import Path

from mm.data.scenes.concepts import SHAPES, concepts
from mm.data.scenes.language import DECLINE, corpus
from mm.data.scenes.layout import SceneConfig, SceneSampler
from mm.data.shards import ShardReader
from mm.privacy.errors import PrivacyError
from mm.text.tokenizer import train_tokenizer


def main() -> int:
    """Train and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, help="tokenizer.json to write")
    parser.add_argument("--shards", nargs="*", default=[], help="scrubbed shards whose text counts")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--scenes", type=int, default=40_000, help="scenes to describe")
    options = parser.parse_args()
    # Names without pictures: a sampler that knows every concept is all that text needs.
    catalogue = {concept.index: {"names": [0]} for concept in concepts()}
    sampler = SceneSampler(
        catalogue, dict.fromkeys(SHAPES, 0), ["any"], [(0, 0, 0)], (), SceneConfig()
    )
    rng = random.Random(0)
    texts = corpus((sampler.draw(rng) for _ in range(options.scenes)), rng)
    # Names by themselves, at the start of a text and inside it, so that they become tokens of
    # their own before the particles that follow them in Korean; and the words of the chat frame.
    names = [n for c in concepts() for n in (c.english, c.korean, f" {c.english}", f" {c.korean}")]
    frame = ["user", "assistant"] * len(concepts())
    try:
        said = [t for d in options.shards for s in ShardReader(d) for _, t in s.turns]
    except PrivacyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tokenizer = train_tokenizer(
        chain(texts, (names + frame) * 400, DECLINE.values(), said), options.vocab_size
    )
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(options.output)
    print(f"{options.output}: {tokenizer.vocab_size} ids")
    return 0


if __name__ == "__main__":
    sys.exit(main())
