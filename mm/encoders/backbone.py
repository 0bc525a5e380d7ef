"""What the adapters of timm and torchvision share: training and first weights."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from mm.encoders import VisionEncoder


class BackboneEncoder(VisionEncoder):
    """An encoder around a network that some library makes."""

    def train(self, mode: bool = True) -> Self:
        """Switch to training; batch norms keep their stored statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal weights by their fan-in, tokens of 0.02; biases 0, norms and scales 1."""
        for name, parameter in self.named_parameters():
            drawn = torch.empty(parameter.shape, device=generator.device)
            if name.endswith("bias"):
                drawn.zero_()
            elif parameter.ndim < 2:
                drawn.fill_(1.0)
            else:
                deviation = parameter[0].numel() ** -0.5 if name.endswith("weight") else 0.02
                drawn.normal_(0.0, deviation, generator=generator)
            parameter.copy_(drawn)
