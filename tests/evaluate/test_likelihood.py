import pytest
import torch

from mm.errors import UsageError
from mm.evaluate.likelihood import choose, log_likelihoods
from mm.evaluate.questions import Question
from mm.text.chat import encode_chat
from tests import tiny_model


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_log_likelihoods_are_those_of_each_row_alone() -> None:
    model, tokenizer = tiny_model.model(), tiny_model.tokenizer()
    features = model.image_features(model.encoder.from_processor(pictures(2)))
    rows = []
    for number, text, more in ((0, "a red cup?", "yes"), (1, "What?", "a blue star on a cup")):
        chat = encode_chat(
            tokenizer, [("user", "<image>" + text)], num_image_tokens=[4],
            add_generation_prompt=True,
        )  # fmt: skip
        rows.append((number, chat.input_ids, tokenizer.encode(more)))
    together = log_likelihoods(model, features, [*rows, rows[0]])
    for row, value in zip(rows, together, strict=False):
        number, prompt, more = row
        ids = torch.tensor([[*prompt, *more]])
        hidden = model.hidden(ids, image_features=features.pick([number]))
        scores = model.logits(hidden).detach().log_softmax(-1)[0, len(prompt) - 1 : -1]
        expected = scores[torch.arange(len(more)), torch.tensor(more)].sum()
        assert value == pytest.approx(float(expected), abs=1e-4)
    assert together[2] == pytest.approx(together[0], abs=1e-5)
    assert together[0] != pytest.approx(together[1], abs=0.1)


def test_the_likeliest_choice_is_taken_whatever_the_batch() -> None:
    model, tokenizer = tiny_model.model(), tiny_model.tokenizer()
    questions = [
        [Question(text, "yes", ("all",), choices=("yes", "no", "3 cups")) for text in row]
        for row in (("a cup?", "a star?"), ("What is this?",))
    ]
    texts = [[question.choices for question in row] for row in questions]
    seen = model.encoder.from_processor(pictures(2))
    results = [
        choose(model, tokenizer, seen, questions, continuations=texts, batch_size=size)
        for size in (1, 100)
    ]
    assert results[0] == results[1]
    assert [len(row) for row in results[0]] == [2, 1]
    # A choice that is longer has the lower sum, but may have the higher mean.
    means = choose(model, tokenizer, seen, questions, continuations=texts, per_token=True)
    assert all(a.said in a.question.choices for row in means for a in row)
    alone = choose(model, tokenizer, None, questions, continuations=texts)
    assert [len(row) for row in alone] == [2, 1]


def test_a_question_without_choices_is_refused() -> None:
    model, tokenizer = tiny_model.model(), tiny_model.tokenizer()
    with pytest.raises(UsageError, match="needs questions with choices"):
        choose(
            model, tokenizer, None, [[Question("a cup?", "yes", ("all",))]], continuations=[[()]]
        )
