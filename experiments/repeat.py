"""Repeat an experiment from nothing: draw its data, scrub it, train every run, compare them.

What is there already is left as it is: the same command again does only what is missing.

Examples:
  python -m experiments.repeat encoders
  python -m experiments.repeat encoders projectors scrubbing --jobs 8     (runs at a time)
  python -m experiments.repeat packing --set recipe.precision=fp32        (on a CPU)
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments import planted, shapes

HERE = Path(__file__).resolve().parent
KEPT = ("config.yaml", "run.json", "status.json", "metrics.jsonl", "held_out.jsonl",
        "extraction.jsonl")  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """Its variants, the baseline first, and the scrubbed sets that it reads."""

    variants: tuple[str, ...]
    sets: tuple[str, ...] = ("shapes_train", "shapes_test")


EXPERIMENTS = {
    "encoders": Experiment(("siglip", "dinov3", "resnet18")),
    "projectors": Experiment(("mlp", "perceiver", "c_abstractor")),
    "packing": Experiment(("packed", "padded")),
    "scrubbing": Experiment(
        ("raw", "scrubbed"), ("planted_raw", "planted_scrubbed", "shapes_test")
    ),
}
POLICIES = {"planted_raw": "metadata_only"}  # where it is not the standard one
COUNTS = {"shapes_train": 20_000, "shapes_test": 1_000, "shapes_dev": 1_000, "planted": 6_000}


def prepare(name: str, counts: dict[str, int]) -> None:
    """Draw and scrub one set into data/, unless it is there."""
    target = Path("data") / name
    if (target / "ledger.json").exists():
        return
    drawn = "planted" if name.startswith("planted") else name
    raw = Path("data/raw") / drawn
    index = raw / "shapes.jsonl"
    if not index.exists():
        if drawn == "planted":
            planted.write(counts[drawn], raw)
        else:
            shapes.write(drawn.removeprefix("shapes_"), counts[drawn], raw)
    words = ["source=jsonl", f"source.path={index}", f"output={target}"]
    policy = POLICIES.get(name, "standard")
    subprocess.run(
        [sys.executable, "scripts/scrub.py", *words, f"policy={policy}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def train(name: str, variant: str, seed: int, more: Sequence[str], keep: Path | None) -> bool:
    """Train one run, and ask it for secrets if any are planted; whether it was done."""
    words = [f"experiment={name}/{variant}", f"recipe.seed={seed}", f"output=runs/{name}", *more]
    log = Path(f"runs/{name}") / f"{variant}-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "scripts/train.py", "-m", *words], stdout=file, stderr=file
        )
    print(f"{name}/{variant} seed {seed}: {'done' if not done.returncode else f'see {log}'}")
    sys.stdout.flush()
    if done.returncode:
        return False
    for folder in Path(f"runs/{name}").glob(f"seed={seed}*-*"):
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        if f"name: {name}/{variant}\n" not in text:
            continue
        if name == "scrubbing" and not (folder / "extraction.jsonl").exists():
            words = ["-m", "experiments.extract", str(folder), "data/raw/planted"]
            subprocess.run([sys.executable, *words], check=False)
        if keep is not None:
            target = keep / name / folder.name
            target.mkdir(parents=True, exist_ok=True)
            for file in KEPT:
                if (folder / file).exists():
                    shutil.copy(folder / file, target / file)
    return True


def compare(name: str, folder: Path) -> None:
    """Write table and plots of an experiment's finished runs into its folder."""
    words = [str(folder), "--output", str(HERE / name / "result")]
    first = f"experiment={name}/{EXPERIMENTS[name].variants[0]}"
    subprocess.run([sys.executable, "scripts/compare.py", *words, "--baseline", first], check=True)


def main() -> int:
    """Read the arguments and repeat."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=EXPERIMENTS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for every run")
    parser.add_argument("--pictures", type=float, default=1.0, help="share of the sets' size")
    parser.add_argument("--keep", type=Path, help="copy what is small of each finished run here")
    parser.add_argument("--no-compare", action="store_true", help="train only")
    options = parser.parse_args()
    counts = {name: int(count * options.pictures) for name, count in COUNTS.items()}
    for name in dict.fromkeys(s for n in options.names for s in EXPERIMENTS[n].sets):
        prepare(name, counts)
    runs = [
        (name, variant, seed)
        for seed in range(options.seeds)
        for name in options.names
        for variant in EXPERIMENTS[name].variants
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(lambda run: train(*run, options.set, options.keep), runs))
    for name in () if options.no_compare else options.names:
        compare(name, Path("runs") / name)
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
