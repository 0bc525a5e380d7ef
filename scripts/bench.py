"""Measure how fast a decoder decodes, a checkpoint loads, or pictures are scrubbed.

decode: random weights of a size named as in conf/decoder, ours (eager, compiled, fused, and
mm.generate as loop) beside transformers (hf-dynamic, hf-static) and the read bandwidth.
load: a checkpoint's folder, or a random one in the shape of Qwen3-4B, beside transformers on the
same files.
scrub: JPEGs through the privacy door, a folder's or made ones, beside Pillow, torchvision, and
exiftool, mat2 and jpegtran where they are installed, and what each leaves of planted secrets.

Examples:
  python scripts/bench.py decode decoder=qwen3_0_6b
  python scripts/bench.py decode decoder=qwen3_4b --engines fused --batch-sizes 1 --breakdown
  python scripts/bench.py decode --device cpu --prompt-tokens 16 --new-tokens 16 --repeats 3
  python scripts/bench.py load DIR --dtype bfloat16
  python scripts/bench.py scrub
"""

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def numbers(text: str) -> tuple[int, ...]:
    """Take a list of numbers apart at its commas."""
    return tuple(int(part) for part in text.split(","))


def main() -> int:
    """Measure, print a table and write everything as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=("decode", "load", "scrub"))
    add("arguments", nargs="*", metavar="decoder=NAME|DIR", help="Hydra overrides; or a folder")
    add("--json", type=Path, help="where to write (default: runs/bench-WHAT.json)")
    add("--repeats", type=int, default=0, help="of each engine (default: 7), loads or tools (3)")
    add("--dtype", default="", help="default: bfloat16, or float32 for decode on a CPU")
    decode = parser.add_argument_group("decode").add_argument
    decode("--engines", default="", help="eager,compiled,fused,loop,hf-dynamic,hf-static")
    decode("--batch-sizes", type=numbers, default=(), help="default: 1,32; on a CPU 1")
    decode("--prompt-tokens", type=int, default=128, help="default: 128")
    decode("--new-tokens", type=int, default=128, help="default: 128")
    decode("--budget", type=float, default=200.0, help="start nothing after so many seconds (200)")
    decode("--device", default="", help="cpu or cuda; default: what there is")
    decode("--breakdown", action="store_true", help="time each kernel of the fused step")
    decode(
        "--tune", type=float, default=0.0, metavar="SECONDS", help="look for better cuts of them"
    )
    arguments = parser.parse_intermixed_args()

    from mm.errors import MMError
    from mm.report import bench

    try:
        if arguments.what != "decode":
            module = importlib.import_module(f"mm.report.bench_{arguments.what}")
            result = module.run(arguments.arguments, arguments.repeats, arguments.dtype)
            print(module.table(result))
        else:
            settings = bench.DecodeSettings(
                engines=tuple(filter(None, arguments.engines.split(","))),
                batch_sizes=arguments.batch_sizes,
                prompt_tokens=arguments.prompt_tokens,
                new_tokens=arguments.new_tokens,
                repeats=arguments.repeats or 7,
                budget_s=arguments.budget,
                device=arguments.device,
                dtype=arguments.dtype,
                breakdown=arguments.breakdown,
                tune_s=arguments.tune,
            )
            config = bench.named_config(arguments.arguments, ROOT / "conf")
            result = bench.bench_decode(config, settings, bench.say_on_stderr)
            print(bench.table(result))
        bench.write_json(result, arguments.json or ROOT / f"runs/bench-{arguments.what}.json")
    except (MMError, ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
