"""What every family is held to: the same picture files through both sides, and every layer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mm import encoders
from mm.encoders.square import SquareEncoder
from mm.privacy.door import open_image
from tests.conftest import redraw

EXACT = {"atol": 2e-5, "rtol": 1e-4}
MODES = {
    "one_pixel": (1, 1, "RGB"),
    "tiny": (5, 3, "RGB"),
    "huge": (1500, 1100, "RGB"),
    "1_to_20": (30, 600, "RGB"),
    "20_to_1": (600, 30, "RGB"),
    "grey": (50, 70, "L"),
    "alpha": (61, 45, "RGBA"),
    "grey_alpha": (45, 61, "LA"),
    "palette": (64, 48, "P"),
}


def reference_library():
    return pytest.importorskip("transformers", reason="the reference is not installed")


def picture_files(folder: Path) -> list[Path]:
    """Write pictures of noise, where every rounding and every tap of a filter shows."""
    folder.mkdir(exist_ok=True)
    for name, (width, height, mode) in MODES.items():
        generator = torch.Generator().manual_seed(width * height)
        bands = {"RGB": 3, "RGBA": 4, "LA": 2}.get(mode, 1)
        shape = (height, width, bands) if bands > 1 else (height, width)
        values = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        picture = Image.frombytes(mode, (width, height), values.numpy().tobytes())
        if mode == "P":
            picture.putpalette([(7 * i + 3 * (i % 3)) % 256 for i in range(768)])
        picture.save(folder / f"{name}.png", compress_level=1)
    return sorted(folder.glob("*.png"))


def their_pixels(processor, path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return processor(image, return_tensors="pt")["pixel_values"]


@torch.no_grad()
def check_layers(encoder: SquareEncoder, model, size: tuple[int, int] | None = None) -> None:
    """Every layer, with and without the final norm, the prefix tokens kept; and the default."""
    config = encoder.config
    size = size or (encoder.picture_size, encoder.picture_size)
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(4))
    theirs = model(pixel_values=pixels, output_hidden_states=True)
    assert len(theirs.hidden_states) == config.num_hidden_layers + 1
    names = ("post_layernorm", "norm", "rms_norm", "layernorm")
    norm = next((getattr(model, name) for name in names if hasattr(model, name)), None)
    if isinstance(norm, torch.nn.Identity):
        norm = None
    keep = {"keep_prefix": True} if encoder.num_special_tokens else {}
    for layer, expected in enumerate(theirs.hidden_states):
        for use_final_norm in (False, True) if norm else (False,):
            counted = layer if layer % 2 else layer - config.num_hidden_layers - 1
            fields = {"feature_layer": counted, "use_final_norm": use_final_norm, **keep}
            one = type(encoder)(replace(config, **fields)).eval()
            one.load_state_dict(encoder.state_dict())
            assert one.num_prefix_tokens == encoder.num_special_tokens
            wanted = norm(expected) if use_final_norm else expected
            torch.testing.assert_close(one(pixels), wanted, **EXACT)
    patches = theirs.last_hidden_state[:, encoder.num_special_tokens :]
    torch.testing.assert_close(encoder(pixels), patches, **EXACT)
    assert encoder.num_prefix_tokens == 0
    P = config.patch_size
    assert patches.shape[1] == (size[0] // P) * (size[1] // P)


@torch.no_grad()
def check_folder(folder: Path, model, processor, vision=None) -> SquareEncoder:
    """A folder that transformers saved: tensors, pixels and features from the same files."""
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    encoder = encoders.load(folder / "model")
    assert isinstance(encoder, SquareEncoder) and not encoder.training
    files = picture_files(folder / "pictures")
    pictures = [open_image(path) for path in files]
    pixels = [their_pixels(processor, path) for path in files]
    for path, picture, expected in zip(files, pictures, pixels, strict=True):
        ours = encoder.preprocess([picture]).pixel_values
        assert ours.dtype == torch.float32, path.name
        torch.testing.assert_close(
            ours, expected, atol=1e-5, rtol=0, msg=lambda m, p=path: f"{p.name}: {m}"
        )
    expected = (vision or model)(pixel_values=torch.cat(pixels)).last_hidden_state
    for (tokens, (grid,)), one in zip(encoder.encode(pictures), expected, strict=True):
        assert len(tokens) == grid[0] * grid[1]
        torch.testing.assert_close(tokens, one[encoder.num_special_tokens :], **EXACT)
    return encoder


def ready(model):
    """Return a reference in evaluation mode with every parameter drawn anew."""
    model.eval()
    redraw(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and (parameter.ndim == 1 and not name.endswith("bias")):
                parameter.add_(0.5)  # layer scales: around a half, so that branches count
    return model
