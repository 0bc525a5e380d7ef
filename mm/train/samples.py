"""What the model says while it is trained: a few held-out questions, to read beside the numbers.

`samples.jsonl` in the run's folder has a line for each, evaluation after evaluation. All texts pass
the text rules of `mm.privacy` on their way there, whatever data and policy a run has: a log must
not hold what a model has learned by heart about people.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from mm.privacy.text import scrub_text
from mm.train.run import RunFolder

FILE = "samples.jsonl"
SAMPLES = "samples"  # under which an evaluation returns them beside its measures
LONGEST = 160  # letters of a text on the screen

Sample = Mapping[str, str]  # question, said, wanted


def keep_samples(samples: Sequence[Sample], step: int, folder: RunFolder) -> None:
    """Print what was said after `step` steps, and add it to the run's file.

    Lines of this step and later ones, from before the run was stopped, are replaced.
    """
    if not samples or not folder.world.is_main:
        return
    path = folder.path / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] < step]
    for sample in samples:
        clean = {key: scrub_text(text)[0] for key, text in sample.items()}
        kept.append(json.dumps({"step": step, **clean}, ensure_ascii=False))
        question, said, wanted = (_short(clean[key]) for key in ("question", "said", "wanted"))
        print(f"  {question}  ->  {said or '(nothing)'}   [{wanted}]", file=sys.stderr)
    folder.write(FILE, "".join(line + "\n" for line in kept))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
