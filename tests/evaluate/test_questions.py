import torch

from mm.data.sample import Sample
from mm.evaluate.questions import Answered, Question, ask, by_label, questions_of
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


def test_questions_of_a_sample_carry_their_labels() -> None:
    turns = [("user", "<image>Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    sample = Sample([b""], turns, {"labels": "caption.en+caption.en.2 name.en"}, "0")
    assert questions_of(sample) == [
        Question("Q1", "A1", ("caption.en", "caption.en.2")),
        Question("Q2", "A2", ("name.en",)),
    ]


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
