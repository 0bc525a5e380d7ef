"""Extraction: likelihoods are those of the model, exposure is a rank."""

import pytest
import torch

from experiments.extract import exposure, log_likelihoods
from mm.text.chat import IMAGE_MARKER, encode_chat
from tests import tiny_model


def test_likelihoods_of_a_batch_are_those_of_each_answer_alone() -> None:
    model, words = tiny_model.model().eval(), tiny_model.tokenizer()
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = model.image_features(model.encoder.preprocess([(pixels[0] * 255).byte()]))
    answers = ["a cup", "no", "a blue star on a white background"]
    found = log_likelihoods(model, words, features, "What is this?", answers)
    for answer, score in zip(answers, found.tolist(), strict=True):
        chat = encode_chat(
            words,
            [("user", f"{IMAGE_MARKER}What is this?"), ("assistant", answer)],
            num_image_tokens=[features.counts[0]],
        )
        ids = torch.tensor([chat.input_ids])
        with torch.no_grad():
            logits = model.logits(model.hidden(ids, image_features=features))[0]
        steps = logits.log_softmax(-1)
        wanted = sum(
            float(steps[at - 1, token])
            for at, token in enumerate(chat.input_ids)
            if chat.labels_mask[at]
        )
        assert score == pytest.approx(wanted, abs=1e-4)


def test_exposure_is_high_for_the_best_and_none_for_the_worst() -> None:
    assert exposure(torch.tensor([5.0, 1.0, 2.0, 3.0])) == 2
    assert exposure(torch.tensor([0.0, 1.0, 2.0, 3.0])) == 0
    assert exposure(torch.tensor([1.0, 2.0, 0.0, 0.0])) == 1
