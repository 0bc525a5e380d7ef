import pytest
import torch

from mm.data.sample import Sample, question_details
from mm.errors import UsageError
from mm.evaluate.questions import (
    Answered,
    Question,
    ask,
    by_label,
    joined,
    questions_of,
)  # fmt: skip
from mm.generate import GenerationConfig, generate
from mm.text.chat import encode_chat, stop_token_ids
from tests import tiny_model


def answered(said: str, answer: str = "two dogs", *labels: str) -> Answered:
    return Answered(Question("?", answer, labels or ("all",)), said)


def test_an_answer_is_right_only_to_the_letter() -> None:
    assert answered("two dogs").is_right and answered(" two dogs. ").is_right
    assert not answered("Two dogs").is_right and not answered("two dog").is_right
    assert answered("개", "개").is_right  # one code point or several
    assert answered("two cats").token_f1 == 0.5 and answered("none").token_f1 == 0.0


def test_shares_are_counted_for_every_label() -> None:
    shares = by_label(
        [answered("two dogs", "two dogs", "a", "a.1"), answered("x", "two dogs", "a", "a.2")]
    )
    assert {k: (s.hits, s.n) for k, s in shares.items()} == {
        "a": (1, 2),
        "a.1": (1, 1),
        "a.2": (0, 1),
    }


TURNS = [("user", "<image>Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]


def test_questions_of_a_sample_carry_their_labels_and_tags() -> None:
    tags = {"labels": "caption.en+caption.en.2 name.ko", "split": "dev", "note": "by me"}
    first, second = questions_of(Sample([b""], TURNS, tags, "0" * 20))
    assert (first.text, first.answer, first.labels) == ("Q1", "A1", ("caption.en", "caption.en.2"))
    assert first.tags == {"split": "dev", "things": "2", "kind": "caption", "language": "en"}
    assert second.tags == {"split": "dev", "things": "2", "kind": "name", "language": "ko"}
    assert (first.id, second.id) == ("0" * 16 + "/0", "0" * 16 + "/1")
    assert questions_of(Sample([b""], TURNS, {"labels": "a b"}, "0"))[1].tags == {"label": "b"}


def test_a_source_says_more_of_its_questions() -> None:
    more = [{"id": "77", "answers": ["x", "y"], "tags": {"type": "z"}}, {"choices": ["A1", "A2"]}]
    first, second = questions_of(Sample([b""], TURNS, question_details(more), "0"))
    assert first.id == "77" and first.accepted == ("x", "y") and first.tags == {"type": "z"}
    assert second.choices == ("A1", "A2") and second.accepted == ("A2",)
    assert Answered(first, "y").is_right and not Answered(first, "A1").is_right
    for broken in ("{", "[]", "[1, 2]", '[{}, "x"]'):
        with pytest.raises(UsageError, match="no JSON list of a mapping for each of its 2"):
            questions_of(Sample([b""], TURNS, {"questions": broken}, "0"))


def test_a_question_asked_again_has_several_answers() -> None:
    one, two = (Question("Q", text, ("all",), id=text) for text in "ab")
    other = Question("R", "c", ("all",))
    first, second = joined([one, other, two])
    assert (first.id, first.accepted) == ("a", ("a", "b")) and second.accepted == ("c",)


def test_without_a_picture_only_the_text_is_asked() -> None:
    model, tokenizer = tiny_model.model(), tiny_model.tokenizer()
    question = Question("a red cup?", "x", ("all",))
    ((alone,),) = ask(model, tokenizer, None, [[question]], max_new_tokens=6)
    prompt = encode_chat(tokenizer, [("user", question.text)], add_generation_prompt=True)
    config = GenerationConfig(
        max_new_tokens=6,
        stop_token_ids=tuple(stop_token_ids(tokenizer)),
        num_valid_tokens=tokenizer.vocab_size,
    )
    (said,) = generate(model, [prompt.input_ids], config=config)
    assert alone.said == tokenizer.decode(said.ids)


def test_many_questions_about_a_picture_are_answered_as_one_by_one() -> None:
    model, tokenizer = tiny_model.model(), tiny_model.tokenizer()
    size = model.encoder.config.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    questions = [[Question("a red cup?", "x", ("all",))] * 2, [Question("yes", "x", ("all",))]]
    taken = model.encoder.from_processor
    together = ask(model, tokenizer, taken(pixels), questions, max_new_tokens=6)
    for i, row in enumerate(questions):
        for j, question in enumerate(row):
            one = taken(pixels[i : i + 1])
            alone = ask(model, tokenizer, one, [[question]], max_new_tokens=6)
            assert alone[0][0].said == together[i][j].said
