"""The tree: which file may import which, and what the files may not hold."""

import ast
import pathlib

import pytest

import keras_kssl

pytestmark = pytest.mark.any_backend

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "keras_kssl"

# Each file imports from the lines above its own, from its own folder, and from what
# stands behind it in EXTRA.
LAYERS = (
    ("_checks", "_machine", "_seeds", "_versions", "replicas"),
    ("_files", "_fusing", "_precision", "progress", "micro_batches"),
    ("profiles",),
    ("kernels",),
    ("statistics", "augment.image_ops"),
    ("objectives", "optimizers", "augment", "checkpoints"),
    ("models", "distribution"),
    ("data", "evaluation", "convert", "pictures"),
    ("export", "recipes", "preview", "doctor", "callbacks"),
    ("pretraining",),
    ("inspection", "report"),
    ("zoo",),
    ("sweeping",),
    ("cli",),
)
EXTRA = {"evaluation": ("data",)}
ONLY = {"recipes": ("_checks",)}
TENSORFLOW_ALLOWED = (
    "_fusing",
    "replicas",
    "micro_batches",
    "data",
    "distribution",
    "export",
    "pretraining",
)

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES
}
TABLE = "\n".join(
    ["Layers, each importing only from those above it:"]
    + [f"    {', '.join(layer)}" for layer in LAYERS]
    + [f"    besides, {name} imports {', '.join(more)}" for name, more in EXTRA.items()]
    + [f"    {name} imports {', '.join(only)} alone" for name, only in ONLY.items()]
)


def unit_of(module):
    """The entry of the table for a module: "augment.policies" -> "augment"."""
    module = module.removesuffix(".__init__")
    units = [unit for layer in LAYERS for unit in layer]
    fitting = [u for u in units if module == u or module.startswith(u + ".")]
    return max(fitting, key=len, default=None)


def imports_of(path):
    """Names of all modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_units(path):
    for name in imports_of(path):
        if name.startswith("keras_kssl."):
            unit = unit_of(name.removeprefix("keras_kssl."))
            if unit is not None:
                yield unit


def may_import(importer, imported):
    if importer == imported or imported in EXTRA.get(importer, ()):
        return True
    if importer == "augment" and imported == "augment.image_ops":
        return True
    if importer in ONLY:
        return imported in ONLY[importer]
    level = {unit: i for i, layer in enumerate(LAYERS) for unit in layer}
    return level[imported] < level[importer]


def test_table_judges_as_it_reads():
    assert may_import("models", "objectives")
    assert not may_import("objectives", "models")
    assert not may_import("objectives", "optimizers")
    assert may_import("evaluation", "data")
    assert not may_import("data", "evaluation")
    assert not may_import("recipes", "kernels")
    assert unit_of("augment.image_ops") == "augment.image_ops"
    assert unit_of("augment.policies") == "augment"


def test_every_file_is_in_the_table():
    missing = [name for name in MODULES if unit_of(name) is None]
    assert missing == ["__init__"], f"Not in the table: {missing}\n{TABLE}"


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_go_one_way(module):
    importer = unit_of(module)
    wrong = {u for u in imported_units(MODULES[module]) if not may_import(importer, u)}
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}.\n{TABLE}"


def test_front_door_imports_nothing_of_the_library():
    assert list(imported_units(MODULES["__init__"])) == []


@pytest.mark.parametrize("module", MODULES)
def test_tensorflow_is_imported_where_it_is_allowed_and_inside_functions(module):
    tree = ast.parse(MODULES[module].read_text())
    tops = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = [alias.name for n in tops if isinstance(n, ast.Import) for alias in n.names]
    names += [n.module for n in tops if isinstance(n, ast.ImportFrom)]
    assert not [n for n in names if n.split(".")[0] == "tensorflow"]
    if unit_of(module) not in TENSORFLOW_ALLOWED:
        names = [name.split(".")[0] for name in imports_of(MODULES[module])]
        assert "tensorflow" not in names, f"TensorFlow in {module}.\n{TABLE}"


@pytest.mark.parametrize("module", MODULES)
def test_library_uses_public_keras_and_raises_proper_errors(module):
    text = MODULES[module].read_text()
    assert "keras.src" not in text
    for node in ast.walk(ast.parse(text)):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        bare = isinstance(node, ast.ExceptHandler) and node.type is None
        assert not bare, f"bare except in line {node.lineno}"


def test_every_public_name_of_the_front_door_is_there():
    for name in keras_kssl.__all__:
        assert getattr(keras_kssl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'kernel'"):
        _ = keras_kssl.kernel


def test_no_file_of_the_project_is_over_5_megabytes():
    folders = ("keras_kssl", "tests", "examples", "benchmarks", "saved_models", ".ci")
    paths = [p for folder in folders for p in (ROOT / folder).rglob("*")]
    paths += ROOT.glob("*")
    sizes = {p: p.stat().st_size for p in paths if p.is_file()}
    assert not {str(p): size for p, size in sizes.items() if size > 5_000_000}
