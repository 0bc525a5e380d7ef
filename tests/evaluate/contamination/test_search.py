from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image

from mm.data.sample import Sample
from mm.errors import UsageError
from mm.evaluate.contamination.search import KINDS, clean_and_touched, find
from mm.evaluate.contamination.texts import TextIndex
from mm.evaluate.records import Record
from mm.report.bench_contamination import as_jpeg

LONG = (
    "a brown dog with a red scarf runs across the wet sand while two small boats"
    " come home behind it in the evening"
)


def picture(seed: int) -> Image.Image:
    image = Image.new("RGB", (96, 80), (30 * seed % 256, 120, 200 - 20 * seed))
    for n in range(5):
        corner = (seed * 13 * (n + 1) % 70, seed * 7 * (n + 2) % 60)
        image.paste(Image.new("RGB", (10 + 4 * n, 18), (40 * n, 255 - 30 * n, 80)), corner)
    return image


def sample(name: str, seed: int, text: str = "what is this?", quality: int = 95) -> Sample:
    data = as_jpeg(picture(seed), quality)
    return Sample([data], [("user", text)], source_id=name)


def test_each_kind_is_found_by_itself() -> None:
    wanted = [sample(f"e{n}", n, f"{LONG} {n}" if n == 3 else "what is it?") for n in range(1, 5)]
    training = [
        sample("t1", 1),  # byte for byte
        sample("t2", 2, quality=40),  # encoded anew
        sample(
            "t3",
            20,
            "it says: " + LONG.upper() + ", but nobody on the pier had thought of"
            " bringing bread, cheese, apples, lamps or blankets for those who would stay until"
            " the next morning with the nets",
        ),
        sample("t4", 30),
    ]
    found = find(wanted, training)
    assert found.items == {
        KINDS[0]: {"e1"},
        KINDS[1]: {"e1", "e2"},
        KINDS[2]: {"e3"},
        KINDS[3]: frozenset(),
    }
    assert found.touched == {"e1", "e2", "e3"} and (found.evaluation, found.training) == (4, 4)
    assert found.short == 3 and found.facts()["found"]["any"]["value"] == 0.75
    assert "13 words in a row" in found.table()


def test_the_file_that_two_pictures_were_made_from_is_known() -> None:
    one = replace(sample("e", 1), origins=["ab" * 32])
    two = replace(sample("t", 9), origins=["ab" * 32])
    assert find([one], [two]).items[KINDS[0]] == {"e"}


def test_nearly_the_same_text_is_found_and_another_is_not() -> None:
    index = TextIndex()
    assert index.add(LONG, 7) and not index.add("what is this?", 8)
    changed = LONG.replace("brown", "black")
    assert index.search(changed)[1] == {7}
    assert index.search("a cat sleeps on the warm stones in front of the old yellow house") == (
        set(),
        set(),
    )
    assert index.search("what is this?") == (set(), set())


def test_korean_texts_are_found() -> None:
    text = "파란 배경 앞에 빨간 스카프를 두른 갈색 개 두 마리와 작은 노란 배 세 척이 나란히 있어요"
    index = TextIndex()
    assert index.add(text, 1)
    assert index.search(text + "!") == ({1}, {1})
    assert index.search(text.replace("빨간", "하얀"))[1] == {1}


def test_no_thirteen_words_are_missed() -> None:
    words = LONG.split()
    for start, _ in pairwise(range(len(words) - 12)):
        index = TextIndex()
        index.add(LONG, 1)
        piece = "so they told us " + " ".join(words[start : start + 13]) + " yesterday"
        assert index.search(piece)[0] == {1}


def test_scores_of_clean_and_touched_items() -> None:
    records = [Record(str(n), "q", score=float(n < 60 or n % 2)) for n in range(160)]
    found = clean_and_touched(records, frozenset(str(n) for n in range(60)))
    by_value = {row.value: row for row in found.rows}
    assert (by_value["yes"].score.value, by_value["no"].score.value) == (1.0, 0.5)
    assert by_value["no"].verdict == "lower"


def test_an_empty_set_is_said() -> None:
    with pytest.raises(UsageError, match="empty"):
        find([], [])
