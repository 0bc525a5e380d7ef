"""A picture, a question and an answer: how likely the model finds the answer, whatever is shown.

A answer tokens, T prompt and answer tokens, N pictures of one size, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mm.encoders import Pictures
from mm.vlm import ImageFeatures, VisionLanguageModel


class Reading:
    """One answer about one picture, to be looked into.

    The answer is given, token after token, and the model says how likely it finds each of them:
    the same for the picture itself, for altered ones, and for features on their way to the decoder.

    Args:
        vlm: a model that sees, in evaluation mode.
        image: uint8 `[3, height, width]`, through the door.
        prompt: token ids with the picture's placeholders.
        answer: token ids, without the one that ends it.
        num_valid_tokens: how many ids have a token; None is all.
        batch_size: altered pictures at a time.

    Raises:
        ValueError: an empty answer, or placeholders for another picture.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        image: Tensor,
        prompt: Sequence[int],
        answer: Sequence[int],
        num_valid_tokens: int | None = None,
        batch_size: int = 16,
    ) -> None:
        if not answer:
            raise ValueError("the answer is empty: there is nothing to explain")
        device = vlm.decoder.model.embed_tokens.weight.device
        self.vlm = vlm
        self.image = image.to(device)
        self.batch_size = batch_size
        self.num_valid_tokens = num_valid_tokens
        self.input_ids = torch.tensor([[*prompt, *answer]], device=device)
        self.answer = torch.tensor(answer, device=device)
        # A token is told by the row in front of it.
        self.rows = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        self.is_image: Tensor = self.input_ids[0].eq(vlm.image_token_id or 0)
        size = self.size
        if int(self.is_image.sum()) != vlm.num_image_tokens(*size):
            raise ValueError(
                f"the prompt has {int(self.is_image.sum())} image placeholders; a picture of"
                f" {size[1]} x {size[0]} takes {vlm.num_image_tokens(*size)}: give one picture"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.image.shape[1], self.image.shape[2]

    def __len__(self) -> int:
        """How many tokens A the answer has."""
        return len(self.answer)

    def preprocess(self, images: Tensor) -> Pictures:
        """Turn uint8 `[N, 3, height, width]` into what the encoder takes."""
        return self.vlm.encoder.preprocess(images).to(self.input_ids.device)

    @torch.no_grad()
    def log_odds(self, images: Tensor) -> Tensor:
        """Return the log-odds of each answer token with other pictures, `[N, A]`.

        The logarithm of p / (1 - p), which goes on telling pictures apart where p is all but 1.

        Args:
            images: uint8 `[N, 3, height, width]`, of the picture's size.
        """
        parts = [
            self.of_features(self.vlm.image_features(self.preprocess(part)))
            for part in images.split(self.batch_size)
        ]
        return torch.cat(parts)

    def probs(self, images: Tensor) -> Tensor:
        """Return how likely the answer is with other pictures, `[N]`: its tokens' geometric mean.

        Args:
            images: as `log_odds`.
        """
        return torch.nn.functional.logsigmoid(self.log_odds(images)).mean(-1).exp()

    def of_tokens(self, tokens: Tensor, pictures: Pictures) -> Tensor:
        """Return the log-odds `[N, A]` of the encoder's patch tokens `[ΣN, D]`, differentiably."""
        values = self.vlm.projector(tokens, pictures.grids)
        return self.of_features(ImageFeatures(values, self.vlm.token_grids(pictures)))

    def of_features(self, features: ImageFeatures) -> Tensor:
        """Return the log-odds `[N, A]` of N pictures' features, differentiably."""
        ids = self.input_ids.expand(len(features), -1)
        hidden = self.vlm.hidden(ids, image_features=features, check=False)
        logits = self.vlm.logits(hidden[:, self.rows]).float()[..., : self.num_valid_tokens]
        told = self.answer.expand(len(features), -1)[..., None]
        others = logits.scatter(-1, told, float("-inf")).logsumexp(-1)
        return logits.gather(-1, told)[..., 0] - others


def shown(image: Tensor, masks: Tensor, filling: Tensor) -> Tensor:
    """Show a picture where masks are 1, and its filling where they are 0.

    Args:
        image: uint8 `[3, height, width]`.
        masks: `[N, rows, columns]`, values from 0 to 1, stretched over the picture.
        filling: uint8 `[3, height, width]`, what stands in for what is not shown.

    Returns:
        uint8 `[N, 3, height, width]`.
    """
    height, width = image.shape[1:]
    rows = torch.arange(height, device=image.device) * masks.shape[1] // height
    columns = torch.arange(width, device=image.device) * masks.shape[2] // width
    share = masks.to(image.device)[:, rows][:, :, columns][:, None]
    mixed = filling + share * (image.float() - filling)
    return mixed.round().to(torch.uint8)


def blurred(image: Tensor, cells: int = 3) -> Tensor:
    """Return the picture so blurred that no thing is left, only the colours of large areas.

    Args:
        image: uint8 `[3, height, width]`.
        cells: how many means a side is made of.
    """
    means = torch.nn.functional.adaptive_avg_pool2d(image.float()[None], cells)
    smooth = torch.nn.functional.interpolate(
        means, image.shape[1:], mode="bicubic", align_corners=False
    )
    return smooth[0].clamp(0, 255).round().to(torch.uint8)


def mean_colour(image: Tensor) -> Tensor:
    """Return a picture of one colour, the mean of the given one, uint8 `[3, height, width]`."""
    mean = image.float().mean((1, 2), keepdim=True)
    return mean.round().to(torch.uint8).expand_as(image).contiguous()
