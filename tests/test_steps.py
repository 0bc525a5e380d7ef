"""Engines: compiled, fused and eager decode the same; which one is taken, and what is refused."""

import copy
import dataclasses
import pickle

import pytest
import torch

from mm import steps
from mm.decoder import compiled
from mm.decoder.cache import KVCache
from mm.decoder.qwen3 import Qwen3ForCausalLM
from mm.errors import UsageError
from mm.generate import GenerationConfig, generate, stream
from mm.steps import choose_engine
from mm.vlm import VisionLanguageModel
from tests import tiny_model
from tests.no_waiting import no_waiting
from tests.test_generate import PROMPTS
from tests.tiny_model import pixels

GREEDY = GenerationConfig(max_new_tokens=12, num_valid_tokens=tiny_model.tokenizer().vocab_size)
COMPILED = dataclasses.replace(GREEDY, decode="compiled")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler traces, specialises and guards as always, but runs the graph as it is."""
    monkeypatch.setattr(compiled.CompiledDecoder.__init__, "__defaults__", ("eager", None))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "sizes", [{}, {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}]
)
def test_compiled_equals_eager_without_compiling_again(sizes: dict[str, int]) -> None:
    vlm = tiny_model.model(**sizes)
    sampled = dataclasses.replace(COMPILED, temperature=1.2, top_k=30, seed=4)
    first = generate(vlm, PROMPTS, pixels(3), COMPILED)
    with torch.compiler.set_stance("fail_on_recompile"):
        # Tokens, prompts of other lengths, pictures or none, and other settings are no new shapes.
        others = generate(vlm, [[7], [9, 10], [3, 4, 5]], None, sampled)
        again = generate(vlm, PROMPTS, pixels(3), COMPILED)
    assert again == first
    eager = generate(vlm, PROMPTS, pixels(3), GREEDY)
    assert [row.ids for row in first] == [row.ids for row in eager]
    for a, b in zip(first, eager, strict=True):
        assert a.token_probs == pytest.approx(b.token_probs, rel=1e-4, abs=1e-6)
    plain = dataclasses.replace(sampled, decode="eager")
    assert [row.ids for row in others] == [
        row.ids for row in generate(vlm, [[7], [9, 10], [3, 4, 5]], None, plain)
    ]


@pytest.mark.slow
def test_generated_code_equals_eager() -> None:
    vlm = tiny_model.model()
    for prompts, pictures in ((PROMPTS, pixels(3)), (PROMPTS[:1], pixels(1))):
        ours = generate(vlm, prompts, pictures, COMPILED)
        eager = generate(vlm, prompts, pictures, GREEDY)
        assert [row.ids for row in ours] == [row.ids for row in eager]
        for a, b in zip(ours, eager, strict=True):
            assert a.token_probs == pytest.approx(b.token_probs, rel=1e-4, abs=1e-6)


@pytest.mark.usefixtures("traced")
def test_an_engine_is_kept_with_its_model_until_the_weights_move() -> None:
    vlm = tiny_model.model()
    generate(vlm, [[5, 6]], None, COMPILED)
    kept = vlm.engine
    assert kept is not None
    generate(vlm, [[7]], None, COMPILED)
    assert vlm.engine is kept
    assert copy.deepcopy(vlm).engine is None
    assert pickle.loads(pickle.dumps(vlm)).engine is None
    with torch.no_grad():  # a step of training changes them where they are
        vlm.decoder.model.norm.weight.mul_(1.5)
    changed = generate(vlm, [[7]], None, COMPILED)
    assert vlm.engine is kept
    assert changed[0].ids == generate(vlm, [[7]], None, GREEDY)[0].ids
    vlm.to(torch.float64)
    wide = generate(vlm, [[7]], None, COMPILED)
    assert vlm.engine is not kept
    assert wide[0].ids == generate(vlm, [[7]], None, GREEDY)[0].ids


def test_auto_is_eager_on_a_cpu_and_under_autocast() -> None:
    vlm = tiny_model.model()
    assert choose_engine(vlm, 1, 10_000, "auto") == "eager"
    with torch.autocast("cpu", torch.bfloat16):
        assert choose_engine(vlm, 1, 10_000, "auto") == "eager"
        with pytest.raises(UsageError, match="does not run under autocast: use 'eager'"):
            choose_engine(vlm, 1, 10, "compiled")
    assert choose_engine(vlm, 4, 10, "compiled") == "compiled"


def test_auto_on_a_gpu_weighs_the_answers_length(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_model.model()
    monkeypatch.setattr(steps, "GPU", "cpu")
    reasons = {1: None, 2: "it decodes one sequence, and the batch has 2"}
    monkeypatch.setattr(
        "mm.decoder.fused.unavailable_reason", lambda decoder, batch_size: reasons[batch_size]
    )
    chosen = {
        (batch, length): choose_engine(vlm, batch, length, "auto")
        for batch in (1, 2)
        for length in (10, 300, 1000)
    }
    assert chosen == {
        (1, 10): "eager",
        (1, 300): "fused",
        (1, 1000): "fused",
        (2, 10): "eager",
        (2, 300): "eager",
        (2, 1000): "compiled",
    }
    with pytest.raises(UsageError, match="decode is 'fused', but it decodes one sequence.*'auto'"):
        choose_engine(vlm, 2, 100, "fused")


def test_fused_without_a_gpu_says_why() -> None:
    config = dataclasses.replace(GREEDY, decode="fused")
    with pytest.raises(UsageError, match="decode is 'fused', but it needs a CUDA device"):
        generate(tiny_model.model(), [[5]], None, config)


def test_an_engine_that_fails_is_told_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def broken(*_: object) -> None:
        tried.append(1)
        raise RuntimeError("no C++ compiler\nwas found")

    vlm = tiny_model.model()
    eager = generate(vlm, [[5, 6]], None, GREEDY)
    monkeypatch.setattr(compiled, "CompiledDecoder", broken)
    monkeypatch.setattr(steps, "choose_engine", lambda *_: "compiled")
    with pytest.warns(
        UserWarning, match="eagerly: 'compiled' failed .RuntimeError: no C.. compiler was f"
    ):
        assert generate(vlm, [[5, 6]], None, GREEDY) == eager
    assert generate(vlm, [[5, 6]], None, GREEDY) == eager
    with pytest.raises(UsageError, match="'compiled' does not work here .RuntimeError.*'eager'"):
        generate(vlm, [[5, 6]], None, COMPILED)
    assert tried == [1]


def test_the_fused_kernels_take_over_a_prefilled_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that computes as the reference does; the kernels have their own tests."""

    class StandIn:
        def __init__(self, decoder: Qwen3ForCausalLM, max_length: int) -> None:
            self.decoder, self.max_length = decoder, max_length

        def load(self, cache: KVCache, next_position: int) -> None:
            assert cache.length == len(PROMPTS[0]) and self.max_length >= cache.length + 12
            config = self.decoder.config
            self.cache = KVCache(config, 1, self.max_length, "cpu", torch.float32)
            for layer in range(config.num_hidden_layers):
                self.cache.update(layer, cache.keys[layer], cache.values[layer])
            self.cache.advance(cache.length)

        def step(self, token: torch.Tensor) -> torch.Tensor:
            assert token.shape == (1,)
            return self.decoder.logits(self.decoder.hidden(token[:, None], cache=self.cache)[:, -1])

    monkeypatch.setattr("mm.decoder.fused.unavailable_reason", lambda *_: None)
    monkeypatch.setattr("mm.decoder.fused.FusedDecoder", StandIn)
    vlm = tiny_model.model()
    for config in (GREEDY, dataclasses.replace(GREEDY, temperature=1.0, seed=3)):
        (eager,) = generate(vlm, PROMPTS[:1], pixels(1), config)
        with torch.no_grad():
            fused = dataclasses.replace(config, decode="fused")
            (ours,) = generate(vlm, PROMPTS[:1], pixels(1), fused)
        assert ours.ids == eager.ids


def test_looking_ahead_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the next step is on its way before a token is looked at."""
    vlm = tiny_model.model()
    plain = generate(vlm, PROMPTS, pixels(3), GREEDY)
    stops = (plain[0].ids[4], plain[1].ids[7], plain[2].ids[2])
    for values in (
        {},
        {"stop_token_ids": stops},
        {"max_new_tokens": 1},
        {"temperature": 1.0, "repetition_penalty": 1.2, "stop_token_ids": stops},
    ):
        config = dataclasses.replace(GREEDY, **values)
        rows = generate(vlm, PROMPTS, pixels(3), config, [1, 2, 3])
        with monkeypatch.context() as patched:
            patched.setattr("mm.generate.GPU", "cpu")
            assert generate(vlm, PROMPTS, pixels(3), config, [1, 2, 3]) == rows


def test_cache_lengths_are_few() -> None:
    lengths = {compiled.cache_length(n, 40960) for n in range(1, 40960, 7)}
    assert lengths == {256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 40960}
    assert compiled.cache_length(20, 30) == 30


# --- On a GPU -----------------------------------------------------------------------------------


def gpu_model(head_dim: int = 64) -> VisionLanguageModel:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "head_dim": head_dim}
    return tiny_model.model(**sizes).to("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("rules", [{}, {"temperature": 0.9, "top_k": 20, "top_p": 0.9}])
def test_on_a_gpu_compiled_equals_eager(rules: dict[str, float]) -> None:
    vlm = gpu_model()
    config = dataclasses.replace(COMPILED, max_new_tokens=100, **rules)  # type: ignore[arg-type]
    ours = generate(vlm, PROMPTS, pixels(3), config, [1, 2, 3])
    eager = generate(
        vlm, PROMPTS, pixels(3), dataclasses.replace(config, decode="eager"), [1, 2, 3]
    )
    assert [row.ids for row in ours] == [row.ids for row in eager]


@pytest.mark.gpu
def test_on_a_gpu_fused_says_what_eager_says() -> None:
    vlm = gpu_model().bfloat16()
    config = dataclasses.replace(GREEDY, max_new_tokens=100)
    (eager,) = generate(vlm, PROMPTS[:1], pixels(1), config)
    (fused,) = generate(vlm, PROMPTS[:1], pixels(1), dataclasses.replace(config, decode="fused"))
    # bfloat16 settles near ties by the order of sums: the same until one comes.
    agree = next((i for i in range(100) if eager.ids[i] != fused.ids[i]), 100)
    assert agree >= 10
    # Up to there it is as close to the same weights in float32.
    ids = torch.tensor([[*PROMPTS[0], *eager.ids[:agree]]], device="cuda")
    logits = copy.deepcopy(vlm).float()(ids, pixels(1).to("cuda"))[0, -agree - 1 : -1]
    probs = logits[:, : tiny_model.tokenizer().vocab_size].softmax(-1)
    exact = probs.gather(1, ids[0, -agree:, None])[:, 0].cpu()
    noise = (torch.tensor(eager.token_probs[:agree]) - exact).norm()
    assert (torch.tensor(fused.token_probs[:agree]) - exact).norm() < 1.2 * noise


@pytest.mark.gpu
@pytest.mark.parametrize("decode", ["eager", "compiled", "fused"])
@pytest.mark.parametrize("rules", [{}, {"temperature": 0.9, "top_k": 20, "top_p": 0.9}])
def test_on_a_gpu_no_step_waits_but_for_its_token(decode: str, rules: dict[str, float]) -> None:
    vlm = gpu_model().bfloat16()
    config = dataclasses.replace(GREEDY, max_new_tokens=40, decode=decode, **rules)  # type: ignore[arg-type]
    run = stream(vlm, PROMPTS[0], pixels(1), config)
    tokens = [next(run) for _ in range(3)]
    with no_waiting():
        tokens += list(run)
    assert len(tokens) == 40
