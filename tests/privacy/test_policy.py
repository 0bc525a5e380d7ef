"""Policies: the files in conf/ are what the code does, and bad values are named."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from mm.privacy.door import Limits, open_image
from mm.privacy.errors import ScrubError
from mm.privacy.metadata import check_pixels_only
from mm.privacy.policy import Policy, from_dict, load_policy
from mm.privacy.text import KINDS

CONF = Path(__file__).resolve().parents[2] / "conf" / "privacy"


def test_standard_file_equals_the_code() -> None:
    assert load_policy(CONF / "standard.yaml") == Policy()


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_is_named_after_itself(path: Path) -> None:
    assert OmegaConf.load(path)["name"] == path.stem


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_files_read_without_hydra_equal_those_composed(path: Path) -> None:
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        config = compose("scrub", [f"privacy@policy={path.stem}", "source=folder"])
    assert load_policy(path) == instantiate(config.policy)


def test_standard_and_metadata_only_name_every_kind() -> None:
    for name, action in {"standard": "mask", "metadata_only": "keep"}.items():
        assert dict(OmegaConf.load(CONF / f"{name}.yaml")["text"]) == dict.fromkeys(KINDS, action)


def test_hash_names_the_content() -> None:
    assert Policy().hash() == from_dict(Policy().as_dict()).hash()
    assert Policy().hash() != Policy(limits=Limits(max_frames=2)).hash()
    assert Policy().hash() != Policy(text={"email": "keep"}).hash()


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_encode_gives_pixels_in_the_named_format(encoding: str) -> None:
    policy = Policy(encoding=encoding, longest_side=20)
    image = Image.new("RGB", (40, 10), (90, 120, 150))
    data = policy.encode(policy.fit(image))
    assert check_pixels_only(data) == encoding
    assert open_image(data).size == (20, 5)


def test_fit_leaves_small_pictures_alone() -> None:
    image = Image.new("RGB", (40, 10))
    assert Policy(longest_side=40).fit(image) is image
    assert Policy(longest_side=None).fit(image) is image
    assert Policy(longest_side=2).fit(Image.new("RGB", (900, 1))).size == (2, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoding": "gif"}, "policy.encoding is 'gif'"),
        ({"quality": 0}, "policy.quality is 0"),
        ({"longest_side": -1}, "policy.longest_side is -1"),
        ({"background": [0, 0, 256]}, "policy.background"),
        ({"on_failure": "ignore"}, "policy.on_failure is 'ignore'"),
        ({"text": {"emial": "mask"}}, "names the unknown kind 'emial'; known: .*email"),
        ({"text": {"email": "hide"}}, "policy.text.email is 'hide'; it must be one of mask"),
        ({"text": ["email"]}, "policy.text is "),
        ({"text_default": "off"}, "policy.text_default is 'off'"),
        ({"faces": "blur"}, "policy.faces is 'blur'"),
        ({"pages": "all"}, "policy.pages is 'all'"),
        ({"phone_regions": ["XX"]}, "unknown phone region 'XX'"),
        ({"limits": {"max_frame": 1}}, "policy.limits: .*max_frame"),
        ({"limits": {"max_frames": 0}}, "policy.limits: limits.max_frames is 0"),
        ({"limts": {}}, "unknown policy key 'limts'; known: .*limits"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ScrubError, match=message):
        from_dict(values)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScrubError, match="no policy file .*none.yaml"):
        load_policy(tmp_path / "none.yaml")
