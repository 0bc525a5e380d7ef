"""The conformance suite on encoders of native resolution and of tiles, each with one bug."""

import pytest
import torch

from mm.encoders import conformance, internvit, siglip2_naflex
from mm.encoders.packed import Packed
from mm.encoders.siglip2_naflex import Encoder
from tests.encoders.test_conformance import failures, passes_everything, tiny


def in_blocks(view, h, w):
    """Reorder tokens row by row to two by two, as if patches came so."""
    if h % 2 or w % 2:
        return view
    return view.unflatten(0, (h // 2, 2, w // 2, 2)).transpose(1, 2).flatten(0, 3)


class LooksAtOtherPictures(Encoder):
    def forward(self, pixel_values, grids):
        x = self.embeddings(pixel_values, grids)
        return self.encoder(x[None], self.num_layers, Packed((len(x),)))[0]


class GivesBlocks(Encoder):
    def tokens(self, pictures):
        found = super().tokens(pictures).split([h * w for h, w in pictures.grids])
        pairs = zip(found, pictures.grids, strict=True)
        return torch.cat([in_blocks(view, *grid) for view, grid in pairs])


class SaysColumnsFirst(Encoder):
    def views(self, height, width):
        return tuple((w, h) for h, w in super().views(height, width))


class PromisesOneMore(Encoder):
    def views(self, height, width):
        return (*super().views(height, width), (1, 1))

    def preprocess(self, images):
        pictures = super().preprocess(images)
        views = tuple(grids[:1] for grids in pictures.views)
        return type(pictures)(pictures.pixel_values, views)


class RefusesInViewsOnly(Encoder):
    def views(self, height, width):
        if max(height, width) > 10 * min(height, width):
            raise ValueError(f"a picture of {height}x{width} is too narrow")
        return super().views(height, width)

    def preprocess(self, images):
        right = Encoder(self.config)
        return right.preprocess(images)


class PositionsStayOnTheCpu(Encoder):
    def forward(self, pixel_values, grids):
        ones = torch.ones(len(pixel_values), self.hidden_size)
        tokens = super().forward(pixel_values, grids)
        return tokens + ones.to(tokens.dtype)


class ShowsTheWholeFirst(internvit.Encoder):
    def preprocess(self, images):
        pictures = super().preprocess(images)
        views = pictures.pixel_values.split([len(views) for views in pictures.views])
        pixels = torch.cat([one.roll(1, 0) for one in views])
        return type(pictures)(pixels, pictures.views)


class ForgetsTheWhole(internvit.Encoder):
    def views(self, height, width):
        found = super().views(height, width)
        return found[: max(1, len(found) - 1)]


WRONG = [
    (LooksAtOtherPictures, "batch", "alone and in a batch differ"),
    (GivesBlocks, "order", "undo any order by blocks"),
    (SaysColumnsFirst, "order", "give tokens row by row"),
    (PromisesOneMore, "shapes", "make views() and hidden_size say what"),
    (RefusesInViewsOnly, "shapes", "let both call one check of the size"),
    (PositionsStayOnTheCpu, "devices", "make tensors on the pixels' device"),
    (ShowsTheWholeFirst, "order", "give tokens row by row"),
    (ForgetsTheWhole, "shapes", "make views() and hidden_size say what"),
]


@pytest.mark.parametrize(
    ("kind", "check", "told"), WRONG, ids=[kind.__name__ for kind, *_ in WRONG]
)
def test_wrong_encoder_of_views_fails_its_check(kind, check, told):
    torch.compiler.reset()
    family = internvit if issubclass(kind, internvit.Encoder) else siglip2_naflex
    more = {"max_tiles": 4, "shortest_edge": None} if family is internvit else {}
    encoder = kind(family.Config(**{**conformance.tiny_values(family.Config), **more}))
    encoder.init_weights(torch.Generator().manual_seed(0))
    conformance.disturb(encoder)
    found = failures(encoder.eval(), save_and_load=None, projectors={}, compile_backend=None)
    assert check in found and told in found[check]
    assert set(found) <= {check, "gradients", "pixels"}


def test_encoder_of_tiles_conforms():
    torch.compiler.reset()
    passes_everything(tiny("internvit", max_tiles=4, shortest_edge=None))
