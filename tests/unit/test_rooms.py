"""A room of the package imports only from rooms below it, and no modules import each other in a circle."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import melanoma

ROOT = Path(melanoma.__file__).parent
# From the lowest to the highest; what stands in one line does not import one another.
ORDER = (
    ("errors", "pages", "terminal"),
    ("paths",),
    ("config",),
    ("data",),
    ("auditing",),
    ("models",),
    ("evaluation", "lineage"),
    ("training",),
    ("tracking",),
    ("card",),
    ("serving",),
    ("registry",),
    ("workflows",),
    ("sweeps",),
    ("report",),
    ("commands",),
    ("cli",),
    ("api",),
    ("__main__",),
)
FACE = "melanoma"  # the package itself, which offers the functions of the API
HEIGHT = {room: height for height, rooms in enumerate(ORDER) for room in rooms}
MODULES = {
    ".".join(("melanoma", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "conf" not in path.relative_to(ROOT).parts
}


def imported(module: str) -> Iterator[str]:
    """The modules of the package that a module imports, also inside functions and for types only."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            if source in MODULES:
                yield from (found if (found := f"{source}.{alias.name}") in MODULES else source for alias in node.names)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_every_room_has_its_place():
    assert {room(module) for module in MODULES} - {"melanoma"} == set(HEIGHT)


def test_only_a_few_modules_stand_beside_the_rooms():
    beside = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert beside == {"cli", "errors", "paths", "terminal", "pages"}


def test_rooms_import_from_rooms_below_them():
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if module != FACE
        for other in imported(module)
        if room(other) != room(module) and "." in other and HEIGHT[room(other)] >= HEIGHT[room(module)]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    modules = set(MODULES) - {FACE}
    TopologicalSorter({module: set(imported(module)) & modules - {module} for module in modules}).prepare()


def test_the_package_imports_only_its_api():
    assert set(imported(FACE)) == {"melanoma.api.functions"}


def test_configurations_import_no_other_room():
    others = {room(other) for module in MODULES if room(module) == "config" for other in imported(module)}
    assert others <= {"config", "errors", "paths"}


def test_the_finder_of_imports_finds_them():
    assert {"melanoma.data.decode", "melanoma.models.model_files"} < set(imported("melanoma.serving.classifier"))
    assert "melanoma.training.network" in set(imported("melanoma.workflows.fitting"))


def test_commands_that_train_nothing_load_no_tensorflow():
    light = ("workflows.runs", "sweeps.sweep", "registry.history", "report.tables")
    modules = ", ".join(f"melanoma.{one}" for one in light)
    code = f"import sys, {modules}; print({{'tensorflow', 'keras'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr
