import io
import json

import numpy as np
import pytest
from PIL import Image

from mm.data.sample import Sample
from mm.errors import UsageError
from mm.evaluate.diversity import diversity, entropy


def encoded(seed: int, quality: int = 95) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((90, 90)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_a_set_is_counted() -> None:
    samples = [
        Sample([encoded(n)], [("user", "what is it?"), ("assistant", f"thing {n}")], {"kind": kind})
        for n, kind in enumerate(["a", "a", "b", "b"])
    ]
    samples.append(Sample([encoded(0, 50)], [("user", "이것은 무엇인가요?")], {"kind": "c"}))
    found = diversity(samples)
    assert (found.samples, found.pictures, found.turns) == (5, 5, 9)
    assert found.tags["kind"] == {"a": 2, "b": 2, "c": 1}
    assert found.scripts == {"latin": 8, "hangul": 1}
    assert (found.repeated_turns.hits, found.repeated_turns.n) == (4, 9)
    assert (found.near_duplicates.hits, found.near_duplicates.n) == (2, 5)
    assert "kind: 3 values, as 2.9 equal ones: a 2, b 2, c 1" in found.table()
    json.dumps(found.facts(), allow_nan=False)
    assert diversity(samples, sampled=4).near_duplicates.hits == 0


def test_entropy_of_known_counts() -> None:
    assert entropy({"a": 4, "b": 4}) == 1.0
    assert entropy({"a": 8}) == 0.0
    assert entropy({"a": 2, "b": 1, "c": 1}) == 1.5


def test_an_empty_set_is_said() -> None:
    with pytest.raises(UsageError, match="empty"):
        diversity([])
