"""The rules of the source tree, held by reading its syntax trees.

Each rule is a function from source text to violations, so that it can be tried on planted
violations too: a rule that cannot catch what it forbids holds nothing.
"""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mm.report.source import code_lines, imported_names, module_name, python_files

ROOT = Path(__file__).resolve().parents[1]
MM_FILES = python_files(ROOT, ["mm"])
SCRIPTS = python_files(ROOT, ["scripts"])

# --- Import order: which part of mm may import which, lowest first ------------------------------

LEAVES = {"errors", "registry"}  # standard library only; every part but privacy may import them
MODELS = {"decoder", "encoders", "projectors"}
ABOVE_DATA = MODELS | {"vlm", "text", "checkpoints", "generate", "privacy", "data", "model"}
ABOVE_DATA |= {"folder", "sampling", "steps", "refusal", "provenance"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "registry": set(),
    "decoder": LEAVES,
    "encoders": LEAVES,
    "projectors": LEAVES,
    "vlm": MODELS | LEAVES,
    "text": LEAVES,
    "checkpoints": MODELS | {"vlm", "text"} | LEAVES,
    "sampling": LEAVES,
    "steps": {"vlm", "decoder", "sampling"} | LEAVES,
    "generate": {"vlm", "text", "sampling", "steps"} | LEAVES,
    "beam": {"generate", "vlm", "sampling", "steps"} | LEAVES,
    "privacy": set(),
    "data": {"privacy", "text"} | LEAVES,
    "folder": {"vlm", "text", "checkpoints"} | LEAVES,
    "refusal": {"privacy"} | LEAVES,
    "provenance": {"__init__"} | LEAVES,
    "model": {"vlm", "text", "sampling", "generate", "folder", "privacy", "refusal"} | LEAVES,
    "train": ABOVE_DATA | LEAVES,
    "evaluate": ABOVE_DATA | {"train"} | LEAVES,
    "explain": ABOVE_DATA | {"train", "evaluate"} | LEAVES,
    "report": ABOVE_DATA | {"train", "evaluate", "explain"} | LEAVES,
    "cli": {"model", "generate", "text", "privacy", "refusal", "provenance"} | LEAVES,
    "__init__": {"model"} | LEAVES,
}
# Parts whose outside libraries are limited too. The encoder contract takes PIL images.
LIBRARIES: dict[str, set[str]] = {
    "errors": set(),
    "registry": set(),
    "decoder": {"torch", "triton"},
    "encoders": {"torch", "torchvision", "timm", "PIL", "numpy"},
    "projectors": {"torch"},
    "vlm": {"torch"},
    "text": {"tokenizers"},
    "checkpoints": {"torch", "safetensors", "numpy"},
    "sampling": {"torch"},
    "steps": {"torch"},
    "generate": {"torch"},
    "beam": {"torch"},
}
# Upwards on purpose, inside a function: `mm.encoders.load` hands a published checkpoint's folder
# to the code that knows the file formats; `mm.generate.generate` hands several beams to `mm.beam`.
UPWARDS = {("mm.encoders", "checkpoints"), ("mm.generate", "beam")}


def part_of(module: str) -> str:
    """Name the part of mm a module belongs to: `mm.text.chat` -> `text`, `mm` -> `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def import_violations(source: str, path: Path) -> Iterator[str]:
    module = module_name(path, ROOT)
    part = part_of(module)
    if part not in ALLOWED:
        yield f"{module}: {part!r} is in no row of the folder table"
        return
    for node, name in imported_names(ast.parse(source), path, ROOT):
        library = name.split(".")[0]
        if library == "mm":
            target = part_of(name)
            lazy_and_excused = (module, target) in UPWARDS and node.col_offset > 0
            if target != part and target not in ALLOWED[part] and not lazy_and_excused:
                yield f"{module}:{node.lineno}: mm.{part} may not import {name}"
        elif library not in sys.stdlib_module_names:
            if part in LIBRARIES and library not in LIBRARIES[part]:
                yield f"{module}:{node.lineno}: mm.{part} may not import {name}"


# --- One door: who may open or decode an image --------------------------------------------------

DOOR = Path("mm/privacy/door.py")
# Dotted names that decode an image. A trailing `.*` forbids everything below.
DECODERS = [
    r"PIL\.Image\.(open|_decompression_bomb_check|_getdecoder|OPEN|__dict__)",
    r"PIL\.(ImageFile|ImageGrab|\w*ImagePlugin|ImageSequence)(\.\w+)*",
    r"torchvision\.io(\.\w+)*",
    r"torchvision\.(datasets|get_image_backend|set_image_backend)(\.\w+)*",
    r"torch\.ops\.image(\.\w+)*",
    # What mm/privacy/visible computes with; anything else of cv2 could read a file.
    r"cv2(\.(?!(?:dnn|setNumThreads|resize|INTER_\w+|blur|threshold"
    r"|THRESH_\w+|connectedComponentsWithStats|morphologyEx|MORPH_\w+)(?:\.|$))\w+)(\.\w+)*",
    r"imageio(\.\w+)*",
    r"skimage\.(io|data)(\.(?!data_dir$)\w+)*",
    r"sklearn\.datasets\.load_sample_images?",
    r"matplotlib\.(image|pyplot|pylab)\.imread",
    r"matplotlib\.cbook\.get_sample_data",
    r"scipy\.(misc|ndimage)\.imread",
    r"tensorflow\.(io|image)(\.\w+)*",
    r"transformers\.image_utils\.load_images?",
    r"(tifffile|imagecodecs|pillow_heif|pyvips|wand|av|decord|rawpy|png|turbojpeg)(\.\w+)*",
    r"simplejpeg\.(?!encode_)\w+",
]
IS_DECODER = re.compile("|".join(f"(?:{pattern})" for pattern in DECODERS))
# Not to be had under another name either: `from PIL.Image import *`, vars(Image), ...
WATCHED = {"PIL", "PIL.Image", "cv2", "simplejpeg", "torchvision"}
WATCHED |= {"matplotlib.pyplot", "matplotlib.image"}


def bindings(tree: ast.AST, path: Path) -> dict[str, str]:
    """Map each name that a file binds by import, anywhere in it, to its full dotted name."""
    names: dict[str, str] = {}
    for node, full in imported_names(tree, path, ROOT):
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                if full.endswith("." + alias.name):
                    names[alias.asname or alias.name] = full
            elif alias.name == full:
                names[alias.asname or full.split(".")[0]] = (
                    full if alias.asname else full.split(".")[0]
                )
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """Follow `Im.open`, `getattr(Im, "open")`, `import_module("PIL.Image").open` to a full name."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, names)
        return names.get(f"{base}.{node.attr}", f"{base}.{node.attr}") if base else None
    if isinstance(node, ast.NamedExpr):
        return dotted(node.value, names)
    if isinstance(node, ast.Call):
        called = dotted(node.func, names) or getattr(node.func, "id", "")
        texts = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        if called in ("importlib.import_module", "__import__") and texts:
            return texts[0].split(".")[0] if called == "__import__" else texts[0]
        if called == "getattr" and texts:
            base = dotted(node.args[0], names)
            return f"{base}.{texts[0]}" if base else None
        if called == "vars" and node.args:
            base = dotted(node.args[0], names)
            return f"{base}.__dict__" if base else None
    return None


def decoder_violations(
    source: str, path: Path, others: dict[str, str] | None = None
) -> Iterator[str]:
    """Yield each mention of an image decoder, under whatever name.

    A mention is enough, for a function that is passed on gets called elsewhere.

    Args:
        others: what other modules of the tree bind, `mm.x.Picture` -> `PIL.Image`, for
            `from mm.x import Picture`.
    """
    tree = ast.parse(source)
    names = dict(others or {}) | bindings(tree, path)
    assignments = [
        (target.id, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    for _ in assignments:  # `opener = Image.open` binds one more name, and so may the next one
        for name, value in assignments:
            if name not in names and (full := dotted(value, names)):
                names[name] = full
    names = {name: (others or {}).get(full, full) for name, full in names.items()}
    for node, full in imported_names(tree, path, ROOT):
        if IS_DECODER.fullmatch(full) or (full.endswith(".*") and full[:-2] in WATCHED):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {full}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name | ast.Call):
            full = dotted(node, names)
            if full and IS_DECODER.fullmatch(full):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {full}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A module's name kept as text is there to be imported by it.
            if "." in node.value and IS_DECODER.fullmatch(node.value):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"


def exported(paths: list[Path]) -> dict[str, str]:
    """Map `mm.x.Picture` to `PIL.Image` where module `mm.x` binds that name by import."""
    table: dict[str, str] = {}
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, full in bindings(tree, path).items():
            table[f"{module_name(path, ROOT)}.{name}"] = full
    return table


# --- Nothing but definitions at import time -----------------------------------------------------

# Calls that compute a constant and touch nothing else.
PURE = re.compile(
    r"(frozenset|tuple|list|dict|set|range|len|sorted|min|max|sum|int|float|str|bytes|zip|map|chr|ord"
    r"|enumerate|slice|reversed|object|property|staticmethod|classmethod"
    r"|re\.compile|re\.escape|types\.MappingProxyType|pathlib\.Path|struct\.Struct|logging\.getLogger"
    r"|typing\.\w+|dataclasses\.\w+|collections\.\w+|enum\.\w+|functools\.\w+|math\.\w+"
    r"|mm\.[\w.]*\.[A-Z]\w*)"
)
PURE_METHODS = {
    "split", "join", "strip", "format", "encode", "decode", "replace", "lower", "upper", "items",
    "keys", "values", "with_name", "with_suffix", "resolve", "joinpath", "fromkeys", "union",
}  # fmt: skip


def effect_violations(source: str, path: Path) -> Iterator[str]:
    """Yield each statement that does more, when the module is imported, than define something."""
    tree = ast.parse(source)
    names = bindings(tree, path)
    local_classes = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
    local_functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    where = path.relative_to(ROOT)

    def calls(value: ast.AST) -> Iterator[ast.Call]:
        if not isinstance(value, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
            if isinstance(value, ast.Call):
                yield value
            for child in ast.iter_child_nodes(value):
                yield from calls(child)

    def impure(value: ast.AST) -> Iterator[str]:
        for call in calls(value):
            full = dotted(call.func, names) or getattr(call.func, "id", "")
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            own = full in local_classes or full in local_functions
            if not own and not PURE.fullmatch(full) and method not in PURE_METHODS:
                yield f"{where}:{call.lineno}: calls {ast.unparse(call.func)}"

    def check(body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            match node:
                case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef():
                    pass
                case ast.Pass() | ast.Expr(value=ast.Constant()):
                    pass
                case ast.ClassDef():
                    yield from check(node.body)
                case ast.Assign() | ast.AnnAssign():
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    for target in targets:
                        if not isinstance(target, ast.Name | ast.Tuple):
                            yield f"{where}:{node.lineno}: assigns to {ast.unparse(target)}"
                    yield from impure(node.value) if node.value else ()
                case ast.If() if ast.unparse(node.test) in (
                    "TYPE_CHECKING",
                    "typing.TYPE_CHECKING",
                ):
                    yield from check(node.body)
                case _:
                    yield f"{where}:{node.lineno}: {type(node).__name__} at import time"

    return check(tree.body)


# --- No pickle, no command line inside mm -------------------------------------------------------

PICKLES = re.compile(r"(pickle|_pickle|dill|cloudpickle|shelve|joblib|marshal|jsonpickle)(\.\w+)*")


def pickle_violations(source: str, path: Path) -> Iterator[str]:
    """Yield what could run code that a file brings along."""
    tree = ast.parse(source)
    names = bindings(tree, path)
    where = path.relative_to(ROOT)
    for node, full in imported_names(tree, path, ROOT):
        if PICKLES.fullmatch(full):
            yield f"{where}:{node.lineno}: imports {full}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            full = dotted(node.func, names) or getattr(node.func, "id", "")
            flags = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if full == "torch.load" and flags.get("weights_only") is not True:
                yield f"{where}:{node.lineno}: torch.load without weights_only=True"
            if full == "numpy.load" and flags.get("allow_pickle") not in (None, False):
                yield f"{where}:{node.lineno}: numpy.load with allow_pickle"
            if full in ("eval", "exec", "compile"):
                yield f"{where}:{node.lineno}: {full}"


def command_line_violations(source: str, path: Path) -> Iterator[str]:
    """Yield where a library file reads the command line."""
    tree = ast.parse(source)
    names = bindings(tree, path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            full = dotted(node, names)
            if full in ("sys.argv", "hydra.main"):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {full}"


# --- The tree ------------------------------------------------------------------------------------


def over(rule: Callable[[str, Path], Iterator[str]], paths: list[Path]) -> list[str]:
    return [v for path in paths for v in rule(path.read_text(encoding="utf-8"), path)]


def test_imports_only_go_up_the_folder_table() -> None:
    assert MM_FILES
    assert over(import_violations, MM_FILES) == []


def test_only_the_door_opens_images() -> None:
    paths = MM_FILES + SCRIPTS
    table = exported(paths)
    found = [
        violation
        for path in paths
        if path.relative_to(ROOT) != DOOR
        for violation in decoder_violations(path.read_text(encoding="utf-8"), path, table)
    ]
    assert found == []


def test_the_door_itself_is_seen_by_the_one_door_rule() -> None:
    path = ROOT / DOOR
    assert list(decoder_violations(path.read_text("utf-8"), path))


def test_importing_mm_only_defines() -> None:
    assert over(effect_violations, MM_FILES) == []


def test_mm_unpickles_and_evaluates_nothing() -> None:
    assert over(pickle_violations, MM_FILES) == []


def test_mm_does_not_read_the_command_line() -> None:
    assert over(command_line_violations, MM_FILES) == []


def test_scripts_are_thin() -> None:
    long = {p.name: n for p in SCRIPTS if (n := code_lines(p.read_text("utf-8"))) > 60}
    assert long == {}


def test_files_are_named_after_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [p for p in MM_FILES + SCRIPTS if vague & {p.stem, p.parent.name}] == []


def test_committed_files_name_no_path_of_one_machine() -> None:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone to list the committed files")
    top = "|".join(["work", "root", "mnt", "scratch"])
    local = re.compile(rf"(?<![\w.:/-])/({top})/\w")
    found = []
    for name in filter(None, listed.split("\0")):
        if not (ROOT / name).is_file():
            continue
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            lines = data.decode("utf-8", errors="replace").splitlines()
            found += [f"{name}:{i}" for i, line in enumerate(lines, 1) if local.search(line)]
    assert found == []


def test_importing_every_module_leaves_the_process_as_it_was() -> None:
    modules = [module_name(path, ROOT) for path in MM_FILES]
    if importlib.util.find_spec("triton") is None:  # torch brings it on Linux only
        modules.remove("mm.decoder.fused_kernels")
    code = f"""
import importlib, os, random
import torch
def state():
    return (dict(os.environ), random.getstate(), torch.get_rng_state().tolist(),
            torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())
before = state()
for name in {modules!r}:
    importlib.import_module(name)
assert state() == before
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- The rules catch what they forbid -----------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "from PIL import Image\nImage.open('x')",
        "from PIL import Image as Im\ndef f(p):\n    return Im.open(p)",
        "import PIL.Image\nPIL.Image.open('x')",
        "import PIL.Image as I\nI.open('x')",
        "import PIL\nPIL.Image.open('x')",
        "from PIL.Image import open as load\nload('x')",
        "from PIL.Image import *",
        "from PIL import Image\nopener = Image.open\nopener('x')",
        "from PIL import Image\nI = Image\nJ = I\nJ.open('x')",
        "from PIL import Image\nfiles = map(Image.open, [])",
        "import simplejpeg\nsimplejpeg.decode_jpeg(b'')",
        "from simplejpeg import *",
        "from PIL import Image\ngetattr(Image, 'open')('x')",
        "from PIL import Image\nvars(Image)['open']('x')",
        "import importlib\nimportlib.import_module('PIL.Image').open('x')",
        "from importlib import import_module as im\nim('PIL.Image').open('x')",
        "__import__('PIL.Image').Image.open('x')",
        "def f(p):\n    from PIL import Image\n    with Image.open(p) as i:\n        return i",
        "if (Im := __import__('PIL').Image):\n    Im.open('x')",
        "from PIL import ImageFile\nImageFile.Parser()",
        "MODULES = {'jpeg': ('PIL.JpegImagePlugin', 'JpegImageFile')}",
        "from PIL.PngImagePlugin import PngImageFile",
        "from torchvision.io import read_image",
        "import torchvision\ntorchvision.io.decode_image(b'')",
        "from torchvision import io as tio\ntio.decode_jpeg(b'')",
        "import torchvision.datasets",
        "import torch\ntorch.ops.image.decode_png",
        "import cv2\ncv2.imread('x')",
        "import cv2 as c\nc.VideoCapture('x')",
        "from cv2 import imdecode",
        "from cv2 import *",
        "import imageio.v3 as iio\niio.imread('x')",
        "from skimage import io",
        "import skimage as s\ns.io.imread('x')",
        "from skimage import data\ndata.astronaut()",
        "import matplotlib.pyplot as plt\nplt.imread('x')",
        "from matplotlib import image as im\nim.imread('x')",
        "from mm.privacy.door import Image\nImage.open('x')",
        "import mm.privacy.door as d\nd.Image.open('x')",
        "from mm.privacy import door\ndoor.Image.open('x')",
    ],
)
def test_one_door_rule_catches(source: str) -> None:
    table = {"mm.privacy.door.Image": "PIL.Image"}
    assert list(decoder_violations(source, ROOT / "mm/data/planted.py", table))


@pytest.mark.parametrize(
    "source",
    [
        "from PIL import Image\nImage.fromarray(x)\nImage.new('RGB', (1, 1))",
        "from pathlib import Path\nPath('x').open()\nopen('x')",
        "import tarfile\ntarfile.open('x')",
        "import torchvision.transforms.functional as F\nF.resize(x, 3)",
        "from mm.privacy.door import open_image\nopen_image('x')",
        "import matplotlib.pyplot as plt\nplt.savefig('x')",
        "from skimage.data import data_dir",
        "import cv2\ncv2.dnn.readNetFromONNX('x')\ncv2.resize(x, (3, 3))",
    ],
)
def test_one_door_rule_allows(source: str) -> None:
    assert list(decoder_violations(source, ROOT / "mm/data/planted.py")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mm/decoder/qwen3.py", "import mm.encoders"),
        ("mm/decoder/qwen3.py", "import numpy"),
        ("mm/decoder/qwen3.py", "from ..text import chat"),
        ("mm/decoder/qwen3.py", "def f():\n    from mm import vlm"),
        ("mm/encoders/siglip.py", "from mm.checkpoints import store"),
        ("mm/encoders/__init__.py", "from mm.checkpoints import store"),
        ("mm/projectors/mlp.py", "from mm.encoders import siglip"),
        ("mm/privacy/door.py", "from mm.errors import MMError"),
        ("mm/privacy/door.py", "from .. import errors"),
        ("mm/data/shards.py", "from mm.vlm import VisionLanguageModel"),
        ("mm/train/loop.py", "from mm.report import source"),
        ("mm/errors.py", "import torch"),
        ("mm/shiny/new.py", "import os"),
    ],
)
def test_import_order_rule_catches(path: str, source: str) -> None:
    assert list(import_violations(source, ROOT / path))


def test_import_order_rule_allows_the_excused_lazy_import() -> None:
    source = "def load(directory):\n    from mm.checkpoints import siglip\n"
    assert list(import_violations(source, ROOT / "mm/encoders/__init__.py")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.manual_seed(0)",
        "import torch\nDEVICE = torch.device('cuda')",
        "import os\nos.environ['X'] = '1'",
        "import torch\ntorch.backends.cudnn.benchmark = True",
        "TEXT = open('x').read()",
        "from pathlib import Path\nTEXT = Path('x').read_text()",
        "print('hello')",
        "for i in range(3):\n    pass",
        "class A:\n    import random\n    x = random.random()",
    ],
)
def test_import_time_rule_catches(source: str) -> None:
    assert list(effect_violations(source, ROOT / "mm/planted.py"))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "from torch import load as fetch\nfetch('x', weights_only=False)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "exec('1')",
    ],
)
def test_pickle_rule_catches(source: str) -> None:
    assert list(pickle_violations(source, ROOT / "mm/planted.py"))


@pytest.mark.parametrize(
    "source", ["import sys\nx = sys.argv", "from sys import argv\nprint(argv)"]
)
def test_command_line_rule_catches(source: str) -> None:
    assert list(command_line_violations(source, ROOT / "mm/planted.py"))
