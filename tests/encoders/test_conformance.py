"""The conformance suite: every registered encoder passes, and each check fails for its own bug."""

import dataclasses
import json
import re
import sys
import time
import types
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from mm import encoders, registry
from mm.encoders import Grid, Pictures, VisionEncoder, conformance
from mm.encoders.conformance import CHECKS, Reference, Surroundings
from mm.encoders.pixels import normalize, resize_uint8, to_uint8
from mm.report import check_encoder as report
from scripts import check_encoder as script

MODELS = {
    "timm": {"model": "vit_tiny_patch16_224", "image_size": 64},
    "torchvision": {"model": "resnet18", "image_size": 64, "shortest_edge": 64},
}


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch.compiler.reset()


def around(width: int, **changes: object) -> Surroundings:
    given = {
        "save_and_load": report.save_and_load,
        "projectors": report.small_projectors(width),
        "compile_backend": "eager",
        "batch_size": 2,
    }
    return Surroundings(**{**given, **changes})


def failures(encoder: VisionEncoder, **changes: object) -> dict[str, str]:
    """Run the suite; map each check that failed to what was seen and its fix."""
    results = list(conformance.run(encoder, around(24, **changes)))
    assert [result.check for result in results] == list(CHECKS)
    failed = [result for result in results if result.status == "fail"]
    assert all(result.fix and "\n" not in result.detail for result in failed)
    return {result.check: f"{result.detail} | {result.fix}" for result in failed}


def tiny(name: str, **changes: object) -> VisionEncoder:
    if name in MODELS:
        pytest.importorskip(name, reason=f"{name} is not installed")
    values = {**conformance.tiny_values(config_type(name)), **MODELS.get(name, {}), **changes}
    encoder = encoders.build(name, values)
    encoder.init_weights(torch.Generator().manual_seed(0))
    conformance.disturb(encoder)
    return encoder.eval()


def config_type(name: str):
    return encoders.config_type(encoders.get(name))


def passes_everything(encoder: VisionEncoder, **changes: object) -> None:
    results = list(conformance.run(encoder, around(encoder.hidden_size, **changes)))
    assert [r for r in results if r.status == "fail"] == []
    skipped = {result.check for result in results if result.status == "skip"}
    assert skipped == {"reference pixels", "reference features"}


@pytest.mark.parametrize("name", encoders.names())
def test_registered_encoder_conforms(name):
    passes_everything(tiny(name))


@pytest.mark.parametrize(
    "model",
    [
        "resnet10t",
        "convnext_atto",
        pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
        pytest.param("vit_small_patch14_reg4_dinov2", marks=pytest.mark.slow),
    ],
)
def test_backbones_of_timm_conform(model):
    passes_everything(tiny("timm", model=model, image_size=70 if "14" in model else 64))


@pytest.mark.parametrize("name", encoders.names())
def test_registered_encoder_conforms_with_its_prefix_tokens(name):
    fields = {field.name for field in dataclasses.fields(config_type(name))}
    if "keep_prefix" not in fields or name == "torchvision":  # its tiny one here has none
        pytest.skip("has no prefix tokens")
    registers = {"num_register_tokens": 2} if "num_register_tokens" in fields else {}
    encoder = tiny(name, keep_prefix=True, **registers)
    assert encoder.num_prefix_tokens == 1 + sum(registers.values())
    passes_everything(encoder)


@pytest.mark.slow
@pytest.mark.parametrize("name", encoders.names())
def test_registered_encoder_compiles_with_inductor(name):
    passes_everything(tiny(name), compile_backend="inductor")


# --- A right encoder, and wrong ones, each with one bug ------------------------------------------


@dataclass(frozen=True)
class Config:
    hidden_size: int = 24
    image_size: int = 32
    patch_size: int = 8


class Good(VisionEncoder):
    Config = Config
    resample = "bilinear"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        P, D = config.patch_size, config.hidden_size
        self.patches = nn.Conv2d(3, D, P, stride=P)
        self.positions = nn.Parameter(torch.zeros((config.image_size // P) ** 2, D))
        self.norm = nn.LayerNorm(D)
        self.mlp = nn.Linear(D, D)
        self.make_more(config)

    def make_more(self, config: Config) -> None:
        """For bugs in what is made."""

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    def views(self, height: int, width: int) -> tuple[Grid, ...]:
        side = self.config.image_size // self.config.patch_size
        return ((side, side),)

    def preprocess(self, images):
        size = (self.config.image_size, self.config.image_size)
        if isinstance(images, Tensor):
            pixels = resize_uint8(images, size, self.resample)
        else:
            each = [resize_uint8(to_uint8(image)[None], size, self.resample) for image in images]
            pixels = torch.cat(each)
        return Pictures.squares(normalize(pixels, (0.5,) * 3, (0.5,) * 3), self.views)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))

    def embed(self, pixel_values: Tensor) -> Tensor:
        return self.patches(pixel_values.to(self.patches.weight.dtype))

    def line_up(self, x_BDhw: Tensor) -> Tensor:
        return x_BDhw.flatten(2).transpose(1, 2)

    def block(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.block(self.line_up(self.embed(pixel_values)) + self.positions)


@dataclass
class Thawed:
    hidden_size: int = 24
    image_size: int = 32
    patch_size: int = 8


class ConfigIsNotFrozen(Good):
    Config = Thawed


class BufferIsLostOnMeta(Good):
    def make_more(self, config):
        self.register_buffer("shift", torch.ones(config.hidden_size), persistent=False)

    def block(self, x):
        return super().block(x + self.shift)


class InitForgetsPositions(Good):
    @torch.no_grad()
    def init_weights(self, generator):
        for name, parameter in self.named_parameters():
            if name != "positions":
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


class InitDrawsFromGlobalState(Good):
    @torch.no_grad()
    def init_weights(self, generator):
        super().init_weights(generator)
        self.positions.normal_()


class InitIgnoresTheSeed(Good):
    def init_weights(self, generator):
        super().init_weights(torch.Generator().manual_seed(0))


class GridOfSmallPicturesIsWrong(Good):
    def views(self, height, width):
        return super().views(height, width) if height > 30 else ((1, 1),)


class FlatPictureIsNotANumber(Good):
    def embed(self, pixel_values):
        flat = pixel_values.flatten(2).std(-1).amax(-1) < 1e-6
        return super().embed(pixel_values.masked_fill(flat.view(-1, 1, 1, 1), float("inf")))


class TokensRunColumnByColumn(Good):
    def line_up(self, x_BDhw):
        return x_BDhw.transpose(2, 3).flatten(2).transpose(1, 2)


class TokensRunByBlocks(Good):
    def line_up(self, x_BDhw):
        x_BDaibj = x_BDhw.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return x_BDaibj.permute(0, 2, 4, 3, 5, 1).flatten(1, 4)


class BatchIsCentred(Good):
    def block(self, x):
        x = super().block(x)
        return x - 0.5 * x.mean(0)


class DrawsInForward(Good):
    def block(self, x):
        torch.rand(1)
        return super().block(x)


class DropsOutInEval(Good):
    def block(self, x):
        return super().block(F.dropout(x, 0.2))


class CopyIsInTraining(Good):
    def make_more(self, config):
        self.dropout = nn.Dropout(0.2)

    def block(self, x):
        return super().block(self.dropout(x))

    def __deepcopy__(self, memo):
        copied = type(self)(self.config)
        copied.load_state_dict(self.state_dict())
        return copied


class TakesFloats(Good):
    def preprocess(self, images):
        if not isinstance(images, Tensor):
            floats = [isinstance(i, Tensor) and i.is_floating_point() for i in images]
            images = [i.byte() if f else i for i, f in zip(images, floats, strict=True)]
        return super().preprocess(images)


class TakesTensorsAsBlueGreenRed(Good):
    def preprocess(self, images):
        return super().preprocess(images.flip(1) if isinstance(images, Tensor) else images)


class ReadsPaletteAsGrey(Good):
    def preprocess(self, images):
        if not isinstance(images, Tensor):
            images = [
                i.convert("L") if not isinstance(i, Tensor) and i.mode == "P" else i for i in images
            ]
        return super().preprocess(images)


class SwapsPictures(Good):
    def preprocess(self, images):
        return super().preprocess(images.flip(0) if isinstance(images, Tensor) else images)


class ChangesItsInput(Good):
    def preprocess(self, images):
        found = super().preprocess(images)
        if isinstance(images, Tensor):
            images.zero_()
        return found


class GivesHalfPrecisionPixels(Good):
    def preprocess(self, images):
        found = super().preprocess(images)
        return replace(found, pixel_values=found.pixel_values.half())


class MlpIsDetached(Good):
    def block(self, x):
        return x + self.mlp(self.norm(x)).detach()


class WeightIsNotUsed(Good):
    def make_more(self, config):
        self.spare = nn.Linear(config.hidden_size, config.hidden_size)


class PixelsAreDetached(Good):
    def embed(self, pixel_values):
        return super().embed(pixel_values.detach())


class BatchNormFollowsTheData(Good):
    def make_more(self, config):
        self.batch_norm = nn.BatchNorm2d(config.hidden_size)

    def embed(self, pixel_values):
        return self.batch_norm(super().embed(pixel_values))


class TokensAlwaysWantGradients(Good):
    def block(self, x):
        x = super().block(x)
        if x.is_leaf and self.training and not torch.is_inference(x):
            x.requires_grad_()
        return x


class PixelsAreNotCast(Good):
    def embed(self, pixel_values):
        return self.patches(pixel_values)


class GivesFloat32(Good):
    def block(self, x):
        return super().block(x).float()


class TensorStaysOnTheCpu(Good):
    def make_more(self, config):
        self.shift = torch.ones(config.hidden_size, device="cpu")

    def block(self, x):
        return super().block(x + self.shift.to(x.dtype))


class LoadsPositionsDoubled(Good):
    def _load_from_state_dict(self, state_dict, prefix, *others):
        state_dict[f"{prefix}positions"] = 2 * state_dict[f"{prefix}positions"]
        super()._load_from_state_dict(state_dict, prefix, *others)


class NotRegistered(Good):
    pass


class Prints(Good):
    def block(self, x):
        print("here")
        return super().block(x)


class OtherEachTimeItIsTraced(Good):
    def block(self, x):
        return super().block(x) + (1.0 if torch.compiler.is_compiling() else 0.0)


class ResizesOtherwise(Good):
    resample = "bicubic"


class NormHasAnotherEpsilon(Good):
    def make_more(self, config):
        self.norm.eps = 1e-2


class Sleeps(Good):
    def block(self, x):
        time.sleep(0.05)
        return super().block(x)


WRONG = [
    (ConfigIsNotFrozen, {"contract"}, "config is no frozen dataclass | write @dataclass(frozen"),
    (BufferIsLostOnMeta, {"contract", "saved"}, 'shift is empty .* | make it with device="cpu"'),
    (InitForgetsPositions, {"weights"}, "leaves positions as it was | set every parameter"),
    (InitDrawsFromGlobalState, {"weights"}, "the global generator | pass generator=generator"),
    (InitIgnoresTheSeed, {"weights"}, "two seeds give the same weights | draw from the generator"),
    (GridOfSmallPicturesIsWrong, {"shapes"}, r"of 1x1 gives tokens \[16, 24\].* | make views()"),
    (FlatPictureIsNotANumber, {"shapes"}, "of 1x1 gives numbers that are not finite | look for"),
    (
        TokensRunColumnByColumn,
        {"order"},
        r"light on row 0 or 1 .* 1\.0\d times as much .* | give tokens row by row",
    ),
    (
        TokensRunByBlocks,
        {"order"},
        "row 0 or 1 of the patches changes .* | undo any order by blocks",
    ),
    (BatchIsCentred, {"batch"}, "alone and in a batch differ by .* | let no statistic"),
    (DrawsInForward, {"determinism"}, "a random number is drawn | draw nothing in forward"),
    (TakesFloats, {"pixels"}, "takes a tensor of floats.* | raise ValueError unless"),
    (TakesTensorsAsBlueGreenRed, {"pixels"}, "preprocess of a batch differs.* | put tensors"),
    (ReadsPaletteAsGrey, {"pixels"}, 'with palette differs from that of its RGB | call convert("R'),
    (SwapsPictures, {"pixels"}, "preprocess of two pictures differs.* | all views of one before"),
    (ChangesItsInput, {"pixels"}, "changes the tensor it is given | copy before"),
    (
        GivesHalfPrecisionPixels,
        {"pixels"},
        "preprocess gives torch.float16 .* | return Pictures of float32",
    ),
    (
        MlpIsDetached,
        {"gradients"},
        "no gradient reaches mlp.bias, mlp.weight, norm.bias and 1 more",
    ),
    (WeightIsNotUsed, {"gradients"}, "no gradient reaches spare.bias, spare.weight | use it in"),
    (PixelsAreDetached, {"gradients"}, "no finite gradient reaches the pixels | keep forward free"),
    (BatchNormFollowsTheData, {"freezing"}, "changes batch_norm.* | keep batch statistics as"),
    (TokensAlwaysWantGradients, {"freezing"}, "ask for a gradient | make every weight a parameter"),
    (PixelsAreNotCast, {"dtypes"}, "RuntimeError: .* | cast pixel values to the weights' dtype"),
    (GivesFloat32, {"dtypes"}, "as torch.float64 it gives torch.float32.* | cast pixel values"),
    (TensorStaysOnTheCpu, {"devices"}, "after a move to another device .* | make tensors on the"),
    (LoadsPositionsDoubled, {"state"}, "with its state gives other tokens | make every weight"),
    (
        NotRegistered,
        {"saved"},
        "is not a registered encoder.* | register it: one file, or an entry",
    ),
    (Prints, {"compile"}, "Unsupported.* | keep .item(), prints and data-dependent Python out of"),
    (OtherEachTimeItIsTraced, {"compile"}, "compiled it is .* deviations off | let forward depend"),
    (ResizesOtherwise, {"reference pixels"}, "of 255 levels off the reference.* | compare resize"),
    (NormHasAnotherEpsilon, {"reference features"}, "off the reference.* | compare layer by layer"),
    (Sleeps, {"throughput"}, "pictures/s, fewer than 100 | profile forward"),
]


def make(kind: type[VisionEncoder], monkeypatch: pytest.MonkeyPatch) -> VisionEncoder:
    """Make an encoder that looks like an installed package's."""
    module = types.ModuleType("outside_encoder")
    module.Encoder = kind if kind is not NotRegistered else Good
    monkeypatch.setitem(sys.modules, "outside_encoder", module)
    points = [EntryPoint("outside", "outside_encoder", "mm.encoders")]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: points if group == "mm.encoders" else []
    )
    encoder = kind(kind.Config())
    encoder.init_weights(torch.Generator().manual_seed(0))
    conformance.disturb(encoder)
    return encoder.eval()


def reference_of(encoder: VisionEncoder) -> Reference:
    """Return a right encoder with the same weights."""
    right = Good(Config())
    own = dict(right.named_parameters())
    for name, parameter in encoder.named_parameters():
        if name in own:
            own[name].data = parameter.data.clone()
    return Reference(
        lambda image: {"pixel_values": right.preprocess([image]).pixel_values},
        lambda inputs, grids: right.eval()(inputs["pixel_values"]).flatten(0, 1),
    )


def test_right_encoder_passes_every_check(monkeypatch):
    encoder = make(Good, monkeypatch)
    given = around(24, reference=reference_of(encoder), least_per_second=1)
    results = list(conformance.run(encoder, given))
    assert {result.check: result.status for result in results} == dict.fromkeys(CHECKS, "pass")


@pytest.mark.parametrize(
    ("kind", "expected", "message"), WRONG, ids=[kind.__name__ for kind, *_ in WRONG]
)
def test_wrong_encoder_fails_its_check_alone_and_learns_the_fix(
    kind, expected, message, monkeypatch
):
    encoder = make(kind, monkeypatch)
    changes: dict[str, object] = {}
    if any(name.startswith("reference") for name in expected):
        changes["reference"] = reference_of(encoder)
    if kind is Sleeps:  # which compiling refuses
        changes |= {"least_per_second": 100, "compile_backend": None}
    found = failures(encoder, **changes)
    assert set(found) == expected
    seen, fix = message.split(" | ")[0], message.split(" | ")[-1] if " | " in message else ""
    (first, *_) = (found[name] for name in CHECKS if name in expected)
    assert re.search(seen if ".*" in seen or "\\" in seen else re.escape(seen), first)
    assert fix in first


def test_dropout_that_never_stops_is_found(monkeypatch):
    assert "determinism" in failures(make(DropsOutInEval, monkeypatch))


def test_copy_that_forgets_its_mode_is_found(monkeypatch):
    assert "determinism" in failures(make(CopyIsInTraining, monkeypatch))


def test_projector_that_breaks_its_promise_is_named(monkeypatch):
    class Liar:
        def num_tokens(self, grid):
            return 4

        def __call__(self, tokens, grids):
            return tokens[:5]

    found = failures(make(Good, monkeypatch), projectors={"liar": Liar()})
    assert found == {
        "projectors": "projector liar promises 4 tokens of grids of 4x4 and gives 5 |"
        " make token_grid of liar say what its project gives"
    }


def test_projector_that_refuses_the_grid_is_told(monkeypatch):
    encoder = make(Good, monkeypatch)
    from mm import projectors

    refusing = projectors.build("mlp", {"input_size": 24, "output_size": 8, "shuffle": 3})
    results = list(conformance.run(encoder, around(24, projectors={"mlp": refusing})))
    (told,) = (result for result in results if result.check == "projectors")
    assert told.status == "pass" and told.detail == "mlp refuses 4x4"


def test_every_check_has_an_encoder_that_fails_it_alone():
    alone = {name for _, expected, _ in WRONG if len(expected) == 1 for name in expected}
    assert alone | {"projectors"} == set(CHECKS)  # the projector's promise has its own test


def test_run_leaves_the_encoder_as_it_was(monkeypatch):
    encoder = make(Good, monkeypatch)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    assert failures(encoder) == {}
    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())
    assert next(encoder.parameters()).device.type == "cpu"


def test_check_can_be_left_out_and_unknown_ones_are_refused(monkeypatch):
    encoder = make(TokensRunColumnByColumn, monkeypatch)
    assert failures(encoder, skip=["order"]) == {}
    with pytest.raises(ValueError, match="no check is named ordr; known: contract, weights"):
        list(conformance.run(encoder, Surroundings(skip=["ordr"])))


# --- The command -------------------------------------------------------------------------------


def test_command_prints_a_line_for_each_check(capsys):
    assert script.main(["siglip_tiny", "--compile", "eager"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == list(CHECKS)
    assert lines[-1] == "siglip_tiny conforms: 16 passed, 0 failed, 2 skipped"


def test_command_fails_and_names_the_fix(capsys):
    given = ["siglip", "--tiny", "--compile", "", "--at-least", "1e12", "image_size=40"]
    assert script.main(given) == 1
    out = capsys.readouterr().out
    assert "throughput          fail" in out and "fix: profile forward" in out
    assert "grids 5x5" in out
    assert out.endswith("siglip does not conform: 14 passed, 1 failed, 3 skipped\n")


def test_command_prints_json(capsys):
    given = ["siglip_tiny", "--compile", "", "--json", "--skip", "saved", "--at-least", "1e12"]
    assert script.main(given) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["encoder"] == "siglip_tiny" and found["conforms"] is False
    assert [check["check"] for check in found["checks"]] == list(CHECKS)
    failed = [check for check in found["checks"] if check["status"] == "fail"]
    assert [check["check"] for check in failed] == ["throughput"] and failed[0]["fix"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["siglp"], "unknown encoder 'siglp'; known: .*; files of conf/encoder: .*siglip_tiny"),
        (["siglip", "image_sise=3"], "unknown field of encoder 'siglip' 'image_sise'"),
        (["siglip", "image_size"], "'image_size' is no FIELD=VALUE, such as image_size=64"),
        (["siglip", "image_size=big"], "image_size of encoder 'siglip' is 'big'; it must be"),
        (["siglip_tiny", "--skip", "ordr"], "no check is named ordr"),
        (["siglip_tiny", "--reference", "nowhere"], "nowhere"),
    ],
)
def test_command_says_in_one_line_what_is_wrong_with_its_arguments(given, message, capsys):
    assert script.main(given) == 2
    told = capsys.readouterr().err
    assert re.search(message, told) and told.count("\n") == 1


def save_with_transformers(folder, kind: str = "Siglip") -> None:
    transformers = pytest.importorskip("transformers", reason="the reference is not installed")
    native = kind == "Siglip2"
    sizes = conformance.tiny_values(config_type("siglip2_naflex" if native else "siglip"))
    most = sizes.pop("max_num_patches", None)
    config = getattr(transformers, f"{kind}VisionConfig")(**sizes)
    model = getattr(transformers, f"{kind}VisionModel")(config)
    conformance.disturb(model)
    model.save_pretrained(folder)
    settings = {"size": {"height": 32, "width": 32}}
    if native:
        settings = {"patch_size": sizes["patch_size"], "max_num_patches": most}
    getattr(transformers, f"{kind}ImageProcessor")(**settings).save_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("siglip", "Siglip"), ("siglip2_naflex", "Siglip2")],
    ids=["square", "native"],
)
def test_command_compares_with_a_published_folder(tmp_path, capsys, name, kind):
    save_with_transformers(tmp_path, kind)
    given = [name, "--compile", "", "--reference", str(tmp_path)]
    assert script.main(given) == 0
    out = capsys.readouterr().out
    assert "reference pixels    pass" in out and "reference features  pass" in out


def test_command_finds_a_published_folder_with_another_activation(tmp_path, capsys, monkeypatch):
    save_with_transformers(tmp_path)
    from mm.encoders import siglip

    right = siglip.MLP.forward
    monkeypatch.setattr(siglip.MLP, "forward", lambda self, x: right(self, x) * 1.001)
    assert script.main(["siglip", "--compile", "", "--reference", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "reference features  fail" in out and "fix: compare layer by layer" in out


def test_command_compares_with_the_tower_of_a_whole_model(tmp_path, capsys):
    from tests.checkpoints import test_lighton_ocr

    test_lighton_ocr.save(tmp_path / "ocr")
    given = ["--compile", "", "--reference"]
    assert script.main(["pixtral", *given, str(tmp_path / "ocr")]) == 0
    assert "reference features  pass" in capsys.readouterr().out


def test_command_refuses_a_folder_of_another_family(tmp_path, capsys):
    save_with_transformers(tmp_path)
    assert script.main(["clip", "--tiny", "--reference", str(tmp_path)]) == 2
    assert "holds a siglip, not clip" in capsys.readouterr().err


def test_size_files_of_every_encoder_are_known_by_name():
    for path in sorted((script.CONF / "encoder").glob("*.yaml")):
        assert yaml.safe_load(path.read_text("utf-8"))["name"] in encoders.names()
