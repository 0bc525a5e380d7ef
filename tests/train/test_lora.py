import pytest
import torch
from torch import nn

from mm.errors import ConfigError
from mm.train.lora import LoraLinear, add_lora, merge_lora
from mm.train.recipe import Lora, PartLoras, RecipeConfig
from mm.train.stages import Stages
from tests.train.test_stages import Parts


def model_with(lora: PartLoras) -> Parts:
    torch.manual_seed(0)
    model = Parts()
    add_lora(model, lora, torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("part", ["encoder", "projector", "decoder"])
def test_adapters_alone_learn_and_merging_changes_nothing(part: str) -> None:
    torch.manual_seed(0)
    plain = Parts().eval()
    model = model_with(PartLoras(**{part: Lora(rank=2, alpha=3.0)})).eval()
    x = torch.randn(6, 3)

    def output(parts: Parts) -> torch.Tensor:
        result: torch.Tensor = parts.decoder(parts.projector(parts.encoder(x)))
        return result

    assert torch.equal(output(plain), output(model))  # an adapter starts as nothing
    for name, parameter in getattr(model, part).named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
    for layer in model.modules():
        if isinstance(layer, LoraLinear):
            nn.init.normal_(layer.lora_B)
    adapted = output(model)
    assert not torch.allclose(adapted, output(plain))
    merge_lora(model)
    torch.testing.assert_close(output(model), adapted)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not any(isinstance(layer, LoraLinear) for layer in model.modules())


def test_stages_train_the_adapters_and_count_them() -> None:
    model = model_with(PartLoras(decoder=Lora(rank=2)))
    stages = Stages(nn.ModuleDict({"model": model}), RecipeConfig(steps=3))
    stages.enter(stages.at(0)[0])
    assert [p.requires_grad for p in model.decoder.parameters()] == [False, False, True, True]
    assert stages.table().splitlines()[3].split()[1:3] == ["26", "14"]


def test_mistakes_in_adapters_are_named() -> None:
    with pytest.raises(ConfigError, match="no layers of the encoder; known: 0"):
        model_with(PartLoras(encoder=Lora(targets=("q_proj",))))
    with pytest.raises(ConfigError, match="rank is 0"):
        Lora(rank=0)
    with pytest.raises(ConfigError, match="lm_head"):
        Lora(targets=("lm_head",))
    with pytest.raises(ConfigError, match="frozen throughout"):
        RecipeConfig(frozen=("decoder",), lora=PartLoras(decoder=Lora()))
