"""Repeat an experiment from nothing: draw its data, scrub it, train every run, compare them.

What is there already is left as it is: the same command again does only what is missing.

Examples:
  python -m experiments.repeat encoders
  python -m experiments.repeat encoders projectors scrubbing --jobs 8     (runs at a time)
  python -m experiments.repeat packing --set recipe.precision=fp32        (on a CPU)
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments import figures, planted, shapes

RUNS = Path("runs/shapes")
HERE = Path(__file__).resolve().parent
KEPT = ("config.yaml", "run.json", "status.json", "metrics.jsonl", "held_out.jsonl",
        "extraction.jsonl")  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """Its variants, names of configurations, the baseline first, and the sets that they read."""

    variants: tuple[str, ...]
    figures: tuple[Callable[[figures.Runs, Path], None], ...] = (figures.by_kind,)
    sets: tuple[str, ...] = ("shapes_train", "shapes_test")
    metric: str | None = None  # that compare.py takes, if not the held-out answers


# Experiments share runs: what is trained already is not trained again.
EXPERIMENTS = {
    "encoders": Experiment(("encoders/siglip", "encoders/dinov3", "encoders/resnet18")),
    "projectors": Experiment(
        ("encoders/siglip", "projectors/perceiver", "projectors/c_abstractor")
    ),
    "packing": Experiment(("encoders/siglip", "packing/padded"), (figures.by_kind, figures.curves)),
    "packing_large": Experiment(
        ("packing/packed_large", "packing/padded_large"), (figures.speeds,), metric="loss"
    ),
    "scrubbing": Experiment(
        ("scrubbing/raw", "scrubbing/scrubbed"),
        (figures.by_kind, figures.extraction),
        ("planted_raw", "planted_scrubbed", "shapes_test"),
    ),
    "packing_tiny": Experiment(
        ("packing/packed_tiny", "packing/padded_tiny"),
        (figures.by_kind, figures.curves),
        metric="loss",
    ),
    "rates": Experiment(("rates/default", "rates/common", "rates/tuned"), metric="loss"),
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


def train(variant: str, seed: int, more: Sequence[str], keep: Path | None) -> bool:
    """Train one run, and ask it for secrets if any are planted; whether it is done."""
    words = [f"experiment={variant}", f"recipe.seed={seed}", f"output={RUNS}", *more]
    RUNS.mkdir(parents=True, exist_ok=True)
    log = RUNS / f"{variant.replace('/', '_')}_{seed}.log"
    with log.open("ab") as file:
        command = [sys.executable, "scripts/train.py", "-m", *words]
        failed = subprocess.run(command, stdout=file, stderr=file).returncode
    print(f"{variant} seed {seed}: {f'see {log}' if failed else 'done'}", flush=True)
    for folder in [] if failed else folders(RUNS, variant, seed):
        if variant.startswith("scrubbing") and not (folder / "extraction.jsonl").exists():
            words = ["-m", "experiments.extract", str(folder), "data/raw/planted"]
            subprocess.run([sys.executable, *words], check=False)
        if keep is not None:
            target = keep / folder.name
            target.mkdir(parents=True, exist_ok=True)
            for file_name in KEPT:
                if (folder / file_name).exists():
                    shutil.copy(folder / file_name, target / file_name)
    return not failed


def folders(runs: Path, variant: str, seed: int | None = None) -> list[Path]:
    """The finished runs of a variant."""
    found = []
    for path in sorted(runs.glob("*/status.json")):
        status = json.loads(path.read_text(encoding="utf-8"))
        words = {f"experiment={variant}", *([] if seed is None else [f"recipe.seed={seed}"])}
        if status["state"] == "done" and words <= set(status["overrides"]):
            found.append(path.parent)
    return found


def compare(name: str, runs: Path, results: Path) -> None:
    """Write table and plots of an experiment's finished runs."""
    variants = EXPERIMENTS[name].variants
    words = [str(folder) for variant in variants for folder in folders(runs, variant)]
    words += ["--output", str(results), "--baseline", f"experiment={variants[0]}"]
    if EXPERIMENTS[name].metric:
        words += ["--metric", str(EXPERIMENTS[name].metric)]
    subprocess.run([sys.executable, "scripts/compare.py", *words], check=True)
    found = {variant: folders(runs, variant) for variant in variants}
    for draw in EXPERIMENTS[name].figures:
        draw(found, results)


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
    parser.add_argument("--data-only", action="store_true", help="draw and scrub, train nothing")
    parser.add_argument("--no-compare", action="store_true", help="train only")
    options = parser.parse_args()
    counts = {name: int(count * options.pictures) for name, count in COUNTS.items()}
    for name in dict.fromkeys(s for n in options.names for s in EXPERIMENTS[n].sets):
        prepare(name, counts)
    if options.data_only:
        return 0
    variants = dict.fromkeys(v for name in options.names for v in EXPERIMENTS[name].variants)
    runs = [(variant, seed) for seed in range(options.seeds) for variant in variants]
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(lambda run: train(*run, options.set, options.keep), runs))
    for name in () if options.no_compare else options.names:
        folder, _, size = name.partition("_")
        compare(name, RUNS, HERE / folder / (f"result_{size}" if size else "result"))
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
