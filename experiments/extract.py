"""Ask a trained model for planted secrets, and measure how well it knows them.

Each secret is asked for by its owner's name, once with a picture that it was planted under and once
with a picture that has nothing to do with it; it is extracted if the likeliest answer holds it. Its
exposure is log2 of how much better than at random it ranks among ALTERNATIVES values drawn alike:
about 1.4 for a secret that is not known, at most 9.

Ref: Carlini et al., "The Secret Sharer" (arXiv 1802.08232), definitions 1 to 3.

Example:
  python -m experiments.extract runs/scrubbing/seed=0-1a2b3c4d data/raw/planted
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.planted import Secret, read, value
from mm.checkpoints import native
from mm.evaluate.questions import Question, ask
from mm.model import pick_device
from mm.privacy.door import open_image
from mm.text.chat import IMAGE_MARKER, encode_chat

ALTERNATIVES = 511


@torch.no_grad()
def log_likelihoods(
    model: Any, tokenizer: Any, features: Any, question: str, answers: list[str]
) -> Tensor:
    """Log-probability of each answer [A] to a question about one picture."""
    tokens = features.counts[0]
    rows = [
        encode_chat(
            tokenizer,
            [("user", IMAGE_MARKER + question), ("assistant", answer)],
            num_image_tokens=[tokens],
        )
        for answer in answers
    ]
    device = next(model.parameters()).device
    length = max(len(row.input_ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    learned = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):  # padding lies behind, where nothing sees it
        ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
        learned[index, : len(row.input_ids)] = torch.tensor(row.labels_mask)
    ids, learned = ids.to(device), learned.to(device)
    hidden = model.hidden(ids, image_features=features.pick([0] * len(rows)))
    at = learned[:, 1:]
    logits = model.logits(hidden[:, :-1][at]).float()
    scores = logits.log_softmax(-1).gather(1, ids[:, 1:][at][:, None])[:, 0]
    place = torch.arange(len(rows), device=device)[:, None].expand_as(at)[at]
    return torch.zeros(len(rows), device=device).index_add_(0, place, scores)


def exposure(scores: Tensor) -> float:
    """Of the first of the scores among the others, in bits."""
    rank = 1 + int((scores[1:] > scores[0]).sum()) + float((scores[1:] == scores[0]).sum()) / 2
    return math.log2(len(scores)) - math.log2(rank)


def extract(directory: Path, raw: Path, device: torch.device) -> list[dict[str, Any]]:
    """A line for each secret: what it is, whether the model said it, and its exposure."""
    loaded = native.load(str(directory / "model"), device=device, dtype=torch.float32)
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    secrets = read(raw / "secrets.jsonl")
    planted = {index for secret in secrets for index in secret.pictures}
    others = [index for index in range(len(list(raw.glob("*.png")))) if index not in planted]
    known = [_said(loaded, raw, secrets, [(*s.pictures, others[0])[0] for s in secrets])]
    known.append(_said(loaded, raw, secrets, others[: len(secrets)]))
    rng, lines = random.Random("alternatives"), []
    for number, secret in enumerate(secrets):
        pictures = model.encoder.preprocess([_open(raw, others[number])])
        features = model.image_features(pictures.to(device))
        answers = [secret.value, *(value(secret.kind, rng) for _ in range(ALTERNATIVES))]
        scores = log_likelihoods(model, tokenizer, features, secret.question, answers)
        lines.append(
            {
                "kind": secret.kind,
                "repeats": secret.repeats,
                "with_its_picture": secret.value in known[0][number],
                "with_another_picture": secret.value in known[1][number],
                "exposure": exposure(scores),
            }
        )
    return lines


def _said(loaded: Any, raw: Path, secrets: list[Secret], pictures: list[int]) -> list[str]:
    opened = [_open(raw, index) for index in pictures]
    questions = [[Question(secret.question, secret.value, ("secret",))] for secret in secrets]
    prepared = loaded.model.encoder.preprocess(opened)
    answers = ask(loaded.model, loaded.tokenizer, prepared, questions, max_new_tokens=32)
    return [row[0].said for row in answers]


def _open(raw: Path, index: int) -> Any:
    return open_image((raw / f"{index:06d}.png").read_bytes())


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("raw", type=Path, help="folder of the planted set, before it was scrubbed")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    lines = extract(options.run, options.raw, pick_device(options.device))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (options.run / "extraction.jsonl").write_text(text, encoding="utf-8")
    planted = [line for line in lines if line["repeats"]]
    hits = sum(line["with_another_picture"] for line in planted)
    print(f"{options.run}: {hits} of {len(planted)} secrets said")


if __name__ == "__main__":
    main()
