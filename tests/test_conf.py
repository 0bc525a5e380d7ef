"""Every YAML of conf/ composes, and what it describes can be built."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mm.data.scenes.layout import SceneConfig
from mm.data.scenes.stream import StreamConfig
from mm.data.scenes.style import StyleConfig
from mm.data.shard_stream import ShardStreamConfig
from mm.evaluate.task import TaskConfig
from mm.privacy.policy import Policy
from mm.registry import make_config
from mm.report.describe import describe
from mm.train import loggers
from mm.train.recipe import RecipeConfig

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = sorted(
    path.relative_to(CONF)
    for folder in (CONF, *CONF.iterdir(), *CONF.glob("hydra/*"))
    for path in folder.glob("*.yaml")
)
TESTED = {
    "encoder", "projector", "decoder", "data", "recipe", "optimizer", "schedule", "experiment",
    "debug", "logger",
    "privacy", "source", "task",
    "hydra/sweeper",  # in tests/train/test_launchers.py
}  # fmt: skip
# Encoders that give several levels side by side, and the projectors that take them.
DEEPSTACK = {"qwen3_vl_so400m": "deepstack", "qwen3_vl_large": "deepstack_large"}


def composed(config_name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(config_name=config_name, overrides=list(overrides))


def plain(config: DictConfig) -> dict[str, Any]:
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def experiments() -> list[str]:
    """All of them, those in folders too."""
    folder = (CONF / "experiment").resolve()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def options(group: str) -> list[str]:
    if group == "experiment":
        return experiments()
    return [path.stem for path in FILES if path.parent.as_posix() == group]


def check_training(overrides: list[str]) -> None:
    """Make everything that training would make of a composed configuration, short of the run."""
    # The name is that of the experiment otherwise, which only a Hydra main knows.
    values = plain(composed("train", "name=test", *overrides))
    assert describe(values).num_image_tokens > 0
    assert make_config(RecipeConfig, values["recipe"], "recipe").steps > 0
    assert loggers.check(values["logger"])
    data = values["data"]
    if data["kind"] == "scenes":
        make_config(SceneConfig, data["scene"], "data.scene")
        make_config(StyleConfig, data["style"], "data.style")
        make_config(StreamConfig, data["stream"], "data.stream")
    else:
        make_config(ShardStreamConfig, data["stream"], "data.stream")


def test_every_group_is_tested_here() -> None:
    assert {path.parent.as_posix() for path in FILES} - {"."} == TESTED
    assert {path.stem for path in FILES if path.parent == Path(".")} <= {
        "train",
        "scrub",
        "evaluate",
    }


@pytest.mark.parametrize("name", options("encoder"))
def test_encoder_builds(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="timm, an extra, is not installed")
    check_training([f"encoder={name}", f"projector={DEEPSTACK.get(name, 'linear')}"])


@pytest.mark.parametrize("name", options("projector"))
def test_projector_builds(name: str) -> None:
    encoders = [f"encoder={encoder}" for encoder, own in DEEPSTACK.items() if own == name]
    check_training([f"projector={name}", *encoders])


@pytest.mark.parametrize("name", options("decoder"))
def test_decoder_builds(name: str) -> None:
    check_training([f"decoder={name}"])


@pytest.mark.parametrize(
    "override",
    [
        f"{group}={name}"
        for group in ("data", "recipe", "optimizer", "schedule", "logger", "experiment", "debug")
        for name in options(group)
    ],
)
def test_training_configuration_builds(override: str) -> None:
    check_training([override])


@pytest.mark.parametrize("name", options("privacy"))
def test_policy_builds(name: str) -> None:
    config = composed("scrub", f"privacy@policy={name}", "source=folder")
    assert isinstance(instantiate(config.policy), Policy)


@pytest.mark.parametrize("name", options("source"))
def test_source_builds(name: str, tmp_path: Path) -> None:
    for file in ("records.json", "pictures.tar", "train/questions.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    more = []
    if name == "parquet":
        table = pyarrow.table({"image": [b""], "text": [""]})
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        more = ["source.caption=text"]
    if name == "mmstar":
        columns = ("image", "question", "answer", "index", "category", "l2_category")
        table = pyarrow.table({column: [""] for column in columns})
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    one_file = ("coco", "gqa", "jsonl", "llava", "mmbench", "pope", "vqav2")
    path = tmp_path / "records.json" if name in one_file else tmp_path
    (tmp_path / "images").mkdir()
    config = composed("scrub", f"source={name}", f"source.path={path}", *more)
    assert type(instantiate(config.source)).__module__ == f"mm.data.sources.{name}"


@pytest.mark.parametrize("name", options("task"))
def test_task_builds(name: str) -> None:
    values = plain(composed("evaluate", f"task={name}"))
    task: TaskConfig = make_config(TaskConfig, values["task"], "task")
    assert task.name == name


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown field of recipe 'stepps'"):
        check_training(["+recipe.stepps=3"])
