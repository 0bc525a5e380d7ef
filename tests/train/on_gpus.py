"""One run on one GPU and on several, compared: `python -m tests.train.on_gpus 2`.

A tiny run in float32 and a larger one in bfloat16, compiled; then the larger one goes on from its
pieces on one GPU. Prints a line of JSON for each.
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from mm.data.scenes.language import corpus
from mm.text.tokenizer import train_tokenizer
from tests.data.scenes.test_layout import sampler
from tests.tiny_artwork import write_artwork
from tests.train import tiny_run
from tests.train.together import together

TINY = ("recipe.steps=6", "recipe.precision=fp32")
LARGE = (
    "encoder=siglip_base", "decoder=qwen3_0_6b", "decoder.config.vocab_size=151936",
    "data.stream.rows=32", "data.stream.row_length=256", "recipe.steps=12", "recipe.precision=bf16",
    "recipe.compile=true", "recipe.num_workers=4", "recipe.checkpoint_every=12",
)  # fmt: skip


def measured(folder: Path, count: int, name: str, *overrides: str) -> dict[str, Any]:
    """Run it on so many GPUs; return what the log says, and what went wrong if something did."""
    more = ("recipe.accumulate=4", "recipe.log_every=2", *overrides, f"output={folder}/{name}")
    codes = together(count, tiny_run.train, folder, *more, log=folder / "log")
    if any(codes):
        return {"codes": codes, "said": (folder / "log-0").read_text()[-3000:]}
    log = map(json.loads, (folder / name / "metrics.jsonl").read_text().splitlines())
    lines = [line for line in log if "loss" in line]
    last = {key: lines[-1].get(key) for key in ("tokens_per_s", "memory_gib", "data_wait", "step")}
    return {"losses": [line["loss"] for line in lines], **last}


def main(gpus: int, device: str = "cuda") -> None:
    """Run everything in a temporary folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_artwork(folder / "artwork")
        rng = random.Random(0)
        texts = corpus((sampler().draw(rng) for _ in range(200)), rng)
        train_tokenizer(texts, 600).save(folder / "tokenizer.json")
        for kind, chosen in (("tiny", TINY), ("large", LARGE)):
            if kind == "large" and device == "cpu":
                continue
            for count in sorted({1, gpus}):
                found = measured(folder, count, f"{kind}-{count}", f"device={device}", *chosen)
                print(json.dumps({"run": kind, "gpus": count, **found}), flush=True)
        kind, chosen = ("tiny", TINY) if device == "cpu" else ("large", LARGE)
        further = ("recipe.steps=16", "recipe.decay_share=0", f"device={device}")
        found = measured(folder, 1, f"{kind}-{gpus}", *chosen, *further)
        print(json.dumps({"run": f"{kind}, goes on", "gpus": 1, **found}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
