"""The logit lens on image tokens: which word the decoder would say at each of them, layer by layer.

Ref: nostalgebraist 2020, "interpreting GPT: the logit lens". The final norm and the head read the
stream after every layer. At an image token no word was ever asked for in training, so a lens shows
what is near at hand there and not what the model says.

M image tokens, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mm.errors import UsageError
from mm.explain.reading import Reading
from mm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Lens:
    """The likeliest token at each image token after each layer.

    Args:
        words: `[L][M]`, and `probs`, how likely they are, `[L, M]`.
        grids: of the image tokens of each view.
    """

    words: Sequence[Sequence[str]]
    probs: Tensor
    grids: Sequence[tuple[int, int]]

    def table(self, layer: int = -1) -> str:
        """Return the words as they lie on the picture, after one layer.

        Raises:
            UsageError: no such layer.
        """
        count = len(self.words)
        if not -count <= layer < count:
            raise UsageError(f"layer {layer} is none of the decoder's, which are 0 to {count - 1}")
        words = list(self.words[layer])
        width = max(map(len, words))
        lines = []
        for view, (rows, columns) in enumerate(self.grids):
            lines += [] if len(self.grids) == 1 else [f"view {view}"]
            for _ in range(rows):
                lines.append(" ".join(f"{word:<{width}}" for word in words[:columns]).rstrip())
                words = words[columns:]
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "grids": [list(grid) for grid in self.grids],
            "words": [list(words) for words in self.words],
            "probs": [[round(p, 4) for p in row] for row in self.probs.tolist()],
        }


@torch.no_grad()
def lens(reading: Reading, tokenizer: Tokenizer) -> Lens:
    """Look at the image tokens of a reading through the final norm and the head."""
    body = reading.vlm.decoder.model
    streams: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        streams.append(args[0])

    # What enters the next layer is what left the last, with what is added between them.
    handles = [module.register_forward_pre_hook(note) for module in (*body.layers[1:], body.norm)]
    try:
        features = reading.vlm.image_features(reading.preprocess(reading.image[None]))
        reading.of_features(features)
    finally:
        for handle in handles:
            handle.remove()
    words, probs = [], []
    for stream in streams:
        logits = reading.vlm.logits(body.norm(stream[0, reading.is_image])).float()
        best = logits[:, : reading.num_valid_tokens].softmax(-1).max(-1)
        words.append([_shown(tokenizer, token) for token in best.indices.tolist()])
        probs.append(best.values.cpu())
    return Lens(words, torch.stack(probs), features.grids[0])


def _shown(tokenizer: Tokenizer, token: int) -> str:
    text = tokenizer.decode([token], skip_special=False).strip()
    return text if text.isprintable() and text else "·"
