"""Measure how fast models decode and encode, checkpoints load, and pictures are scrubbed.

decode: random weights of a size named as in conf/decoder, ours (eager, compiled, fused, and
mm.generate as loop) beside transformers (hf-dynamic, hf-static) and the read bandwidth.
encoder: random weights of sizes named as in conf/encoder, ours (eager, compiled, graphs, tuned)
beside transformers (the same after hf-) and the rate of a large matrix product.
load: a checkpoint's folder, or a random one in the shape of Qwen3-4B, beside transformers on the
same files.
scrub: JPEGs through the privacy door, a folder's or made ones, beside Pillow, torchvision, and
exiftool, mat2 and jpegtran where they are installed, and what each leaves of planted secrets.
train: steps of packed rows of a vision-language model with random weights, beside transformers'
Llava of the same sizes (hf-), with data from scrubbed shards on disk, which it makes.
visible: how many faces, codes, plates and written personal data in drawn scenes get covered, what
is covered without need, and the costs; a folder keeps the fonts (default: artwork/cache).
contamination: changed copies of evaluation pictures among training pictures: how many are found,
what is found falsely, how fast; composed of a folder of scrubbed artwork (default: data/artwork).

Examples:
  python scripts/bench.py decode decoder=qwen3_0_6b
  python scripts/bench.py decode decoder=qwen3_4b --engines fused --batch-sizes 1 --breakdown
  python scripts/bench.py decode --device cpu --prompt-tokens 16 --new-tokens 16 --repeats 3
  python scripts/bench.py encoder siglip_base siglip_so400m --budget 200
  python scripts/bench.py encoder siglip_tiny image_size=64 --device cpu
  python scripts/bench.py load DIR --dtype bfloat16
  python scripts/bench.py scrub
  python scripts/bench.py train decoder=qwen3_0_6b decoder=qwen3_1_7b --batch-sizes 16384
  python scripts/bench.py visible --repeats 4
"""

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def numbers(text: str) -> tuple[int, ...]:
    """Take a list of numbers apart at its commas."""
    return tuple(int(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Take a list of names apart at its commas."""
    return tuple(filter(None, text.split(",")))


def main() -> int:
    """Measure, print a table and write everything as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=("decode", "encoder", "load", "scrub", "train", "visible", "contamination"))
    add("words", nargs="*", metavar="decoder=NAME|NAME|DIR", help="what to measure, see above")
    add("--json", type=Path, help="where to write (default: runs/bench-WHAT.json)")
    add("--repeats", type=int, help="of each engine (7; encoder: 9; train: 5), loads or tools (3)")
    add("--dtype", help="default: bfloat16; decode and encoder on a CPU: float32")
    add("--engines", type=names, help="of decode, encoder and train, such as compiled,hf-compiled")
    add(
        "--batch-sizes",
        type=numbers,
        help="decode: 1,32; encoder: searched; train: tokens, 16384,8192",
    )
    add("--budget", dest="budget_s", type=float, help="start nothing after so many seconds (200)")
    add(
        "--breakdown", action="store_true", default=None, help="decode and train: time kernels, too"
    )
    add("--device", help="cpu or cuda; default: what there is")
    decode = parser.add_argument_group("decode").add_argument
    decode("--prompt-tokens", type=int, help="default: 128")
    decode("--new-tokens", type=int, help="default: 128")
    decode("--tune", dest="tune_s", type=float, help="seconds to look for better cuts of them")
    options = {k: v for k, v in vars(parser.parse_intermixed_args()).items() if v is not None}
    what, words = options.pop("what"), options.pop("words")
    target = options.pop("json", ROOT / f"runs/bench-{what}.json")
    options |= {"target": target} if what == "train" else {}  # written after each engine, too

    from mm.errors import MMError
    from mm.report.bench import write_json

    try:
        module = importlib.import_module("mm.report.bench" + f"_{what}" * (what != "decode"))
        result = module.run(words, ROOT / "conf", **options)
        print(module.table(result))
        write_json(result, target)
    except (MMError, ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
