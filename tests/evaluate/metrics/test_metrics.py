"""The metrics against values that the official scripts gave for the same answers.

`reference.json` was recorded with VQA's vqaEval.py (version 2.0), POPE's evaluate.py and
pycocoevalcap 1.2; where the last one is installed it is asked again.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mm.errors import UsageError
from mm.evaluate import metrics
from mm.evaluate.metrics import Scored
from mm.evaluate.metrics.caption import bleu, bleu_counts, cider, rouge_l
from mm.evaluate.metrics.choice import chosen, lettered
from mm.evaluate.metrics.point import point_of
from mm.evaluate.metrics.presence import says_yes
from mm.evaluate.metrics.vqa import agreement, normal_form
from mm.evaluate.metrics.words import words
from mm.evaluate.questions import Answered, Question
from mm.registry import UnknownNameError

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text("utf-8"))
CLOSE = 1e-6  # what is asked for; both sides are float64


def answered(said: str, *accepted: str, choices: tuple[str, ...] = ()) -> Answered:
    return Answered(Question("?", accepted[0], ("all",), accepted, choices), said)


def scores(name: str, answers: list[Answered]) -> list[Scored]:
    return metrics.build(name).score(answers)


def test_registry_knows_the_metrics() -> None:
    known = ["caption", "choice", "exact", "match", "meteor", "point", "presence", "vqa"]
    assert metrics.names() == known
    with pytest.raises(UnknownNameError, match="did you mean 'caption'"):
        metrics.build("captions")


# --- vqa ------------------------------------------------------------------------------------------


def test_vqa_accuracy_is_the_official_one() -> None:
    cases = REFERENCE["vqa"]
    found = scores("vqa", [answered(case["said"], *case["people"]) for case in cases])
    values = [case["value"] for case in cases]
    assert {0.0, 1.0} < set(values)
    np.testing.assert_allclose([s.score for s in found], values, rtol=0, atol=CLOSE)


def test_vqa_accuracy_leaves_each_person_out() -> None:
    people = ["cat"] * 3 + ["dog"] * 7
    # Seven others see two more cats, and three see two others: (7 * 1 + 3 * 2 / 3) / 10.
    assert agreement("cat", people) == pytest.approx(0.9)
    assert agreement("dog", people) == 1.0 and agreement("bird", people) == 0.0


def test_vqa_normal_form_keeps_the_official_quirks() -> None:
    assert normal_form("The  Two dogs!") == "2 dogs"
    assert normal_form("1,000 people") == "1000 people" and normal_form("2.5.") == "2.5"
    assert normal_form("dont") == "don't" and normal_form("somebody'd") == "somebodyd"


# --- presence -------------------------------------------------------------------------------------


def test_presence_is_what_popes_script_counts() -> None:
    case = REFERENCE["presence"]
    pairs = zip(case["said"], case["labels"], strict=True)
    found = scores("presence", [answered(said, label) for said, label in pairs])
    sums = {name: np.array(sum(s.extra[name] for s in found)) for name in found[0].extra}
    values = {name: float(v) for name, v in metrics.build("presence").measures(sums).items()}
    values["accuracy"] = sum(s.score for s in found) / len(found)
    for name, value in case["values"].items():
        assert values[name] == pytest.approx(value, abs=CLOSE), name


def test_presence_reads_korean() -> None:
    assert says_yes("네") and says_yes("네, 있어요") and says_yes("yes")
    assert not says_yes("아니요") and not says_yes("없어요")


# --- caption --------------------------------------------------------------------------------------


def split_captions() -> tuple[list[list[str]], list[list[list[str]]]]:
    case = REFERENCE["caption"]
    return [text.split() for text in case["said"]], [
        [text.split() for text in texts] for texts in case["wanted"]
    ]


def test_caption_scores_are_those_of_the_reference_for_the_same_words() -> None:
    case, (said, wanted) = REFERENCE["caption"], split_captions()
    np.testing.assert_allclose(cider(said, wanted), case["cider"], rtol=0, atol=CLOSE)
    found = [rouge_l(own, texts) for own, texts in zip(said, wanted, strict=True)]
    np.testing.assert_allclose(found, case["rouge_l"], rtol=0, atol=CLOSE)
    counts = [bleu_counts(own, texts) for own, texts in zip(said, wanted, strict=True)]
    sums = {name: np.array(sum(c[name] for c in counts)) for name in counts[0]}
    values = [float(value) for value in bleu(sums).values()]
    np.testing.assert_allclose(values, case["bleu"], rtol=0, atol=CLOSE)
    assert np.std(case["cider"]) > 0.1 and 0 < case["bleu"][3] < case["bleu"][0] < 1


def test_caption_scores_are_those_of_the_installed_reference() -> None:
    module = pytest.importorskip("pycocoevalcap.cider.cider")
    case = REFERENCE["caption"]
    numbered = dict(enumerate(case["wanted"]))
    said = {number: [text] for number, text in enumerate(case["said"])}
    _, values = module.Cider().compute_score(numbered, said)
    np.testing.assert_allclose(cider(*split_captions()), values, rtol=0, atol=CLOSE)


def test_caption_metric_splits_words_itself() -> None:
    one = answered("A dog, on the table.", "a dog on the table", "two dogs")
    two = answered("A cat", "the cat's bowl")
    first, second = scores("caption", [one, two])
    assert first.score > second.score > 0
    assert first.extra["rouge_l"] == 1.0 and first.extra["right_4"] == 2.0


def test_meteor_counts_stems_and_word_order() -> None:
    pytest.importorskip("nltk.translate.meteor_score")
    found = scores(
        "meteor",
        [
            answered("a dog runs", "a dog runs"),
            answered("a dog running", "two cats", "a dog runs"),
            answered("runs dog a", "a dog runs"),
            answered("tree", "a dog runs"),
        ],
    )
    whole, stems, turned, none = (s.score for s in found)
    # Three matches in one chunk: 1 - 0.5 * (1 / 3) ** 3; in three chunks: 1 - 0.5.
    assert whole == stems == pytest.approx(1 - 0.5 / 27)
    assert turned == pytest.approx(0.5) and none == 0


def test_meteor_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.translate.meteor_score", None)
    with pytest.raises(UsageError, match=r"pip install 'mm\[eval\]'"):
        scores("meteor", [answered("a", "a")])


def test_words_are_those_of_the_ptb_tokenizer_for_plain_captions() -> None:
    # Expected by the Penn Treebank's rules, in lower case and without punctuation.
    assert words('A man\'s t-shirt says "Hello!"') == ["a", "man", "'s", "t-shirt", "says", "hello"]
    assert words("It isn’t 3.5 km, it's 1,000.") == [  # noqa: RUF001
        "it", "is", "n't", "3.5", "km", "it", "'s", "1,000",
    ]  # fmt: skip
    assert words("red,blue (and green) - done...") == [
        "red", "blue", "-lrb-", "and", "green", "-rrb-", "done",
    ]  # fmt: skip
    # What the reference's Java program gave.
    assert words("A double-decker bus by Mr. Smith's shop at 5 p.m.") == [
        "a", "double-decker", "bus", "by", "mr.", "smith", "'s", "shop", "at", "5", "p.m.",
    ]  # fmt: skip
    assert words("The U.S. cat cannot jump; they've given up!") == [
        "the", "u.s.", "cat", "can", "not", "jump", "they", "'ve", "given", "up",
    ]  # fmt: skip
    assert words("빨간 컵, 파란 별.") == ["빨간", "컵", "파란", "별"]


# --- choice, point, match, exact ------------------------------------------------------------------

CHOICES = ("a cat", "a dog", "no animal")


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("B", 1), ("(B)", 1), ("B. a dog", 1), ("C: no animal", 2), ("The answer is (B).", 1),
        ("answer: C", 2), ("A dog.", 1), ("a cat", 0), ("There is no animal in it", 2),
        ("A bird is there", None), ("D", None), ("a cat and a dog", None), ("", None), ("A", 0),
    ],
)  # fmt: skip
def test_a_choice_is_read(said: str, number: int | None) -> None:
    assert chosen(said, CHOICES) == number


def test_choice_scores_the_right_one() -> None:
    found = scores(
        "choice", [answered(said, "a dog", choices=CHOICES) for said in ("B", "A", "what?")]
    )
    assert [s.score for s in found] == [1.0, 0.0, 0.0]
    assert [s.extra["unread"] for s in found] == [0.0, 0.0, 1.0]
    assert lettered("Which?", CHOICES) == "Which?\nA. a cat\nB. a dog\nC. no animal"


@pytest.mark.parametrize(
    ("said", "point"),
    [
        ("(0.25, 0.5)", (0.25, 0.5)), ("12 30", (12, 30)), ("[10, 20, 30, 40]", (20, 30)),
        ('<point x="63.5" y="44" alt="cup">cup</point>', (63.5, 44)),
        ('{"point_2d": [7, 8], "label": "cup"}', (7, 8)), ("nowhere", None), ("5", None),
    ],
)  # fmt: skip
def test_a_point_is_read(said: str, point: tuple[float, float] | None) -> None:
    assert point_of(said) == point


def test_a_point_counts_in_any_of_the_boxes() -> None:
    boxes = ("0 0 10 10", "50,50,60,60")
    found = scores("point", [answered(said, *boxes) for said in ("5 5", "55 60", "20 20", "")])
    assert [s.score for s in found] == [1.0, 1.0, 0.0, 0.0]
    assert found[3].extra == {"unread": 1.0}


def test_match_ignores_case_and_punctuation_and_exact_does_not() -> None:
    answers = [answered("Red.", "red"), answered("red", "blue", "red"), answered("dark red", "red")]
    assert [s.score for s in scores("match", answers)] == [1.0, 1.0, 0.0]
    assert [s.score for s in scores("exact", answers)] == [0.0, 1.0, 0.0]
