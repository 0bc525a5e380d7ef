"""Write held-out scenes as files with planted EXIF and personal text, ready for scripts/scrub.py.

Sets: seen (training artwork, pairs never seen together), unseen (artwork of --split), reading
(words that training never shows; letters of --letters).

Examples:
  python scripts/compose_scenes.py unseen --split test --output held_out/unseen
  python scripts/compose_scenes.py reading --count 500 --output held_out/reading
"""

import argparse
import sys
from pathlib import Path

from mm.data.scenes.artwork import load_artwork
from mm.data.scenes.files import FileConfig, write_scenes
from mm.data.scenes.layout import SceneConfig
from mm.privacy.errors import PrivacyError

SETS = {
    "seen": SceneConfig(count_weights=(0, 0.4, 0.3, 0.3), word_share=0, pairs="unseen"),
    "unseen": SceneConfig(word_share=0, pairs="any"),
    "reading": SceneConfig(word_share=1, pairs="any", words="test"),
}


def main() -> int:
    """Compose one set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--output", required=True, help="folder for the pictures and scenes.jsonl")
    parser.add_argument("--artwork", nargs="+", default=["data/artwork"], help="scrubbed artwork")
    parser.add_argument("--split", default="train", help="train, dev or test artwork")
    parser.add_argument("--letters", default="train", help="split of the fonts")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        artwork = load_artwork(
            options.artwork, splits=(options.split,), letter_splits=(options.letters,)
        )
        config = FileConfig(count=options.count, seed=options.seed)
        print(write_scenes(Path(options.output), artwork, SETS[options.set], config))
    except (PrivacyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
