"""The architecture, read off the source: who may import whom. And what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the ground up; rooms on one floor do not know each other.
FLOORS = (
    {"tokenizers", "errors", "files"},
    {"models", "data"},
    {"generation", "evaluation", "quantization"},
    {"formats", "serving"},
    {"training"},
    {"alignment"},
    {"commands"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# autograd's modules that are public beside the package itself.
PUBLIC_AUTOGRAD = {"autograd", "autograd.arrays", "autograd.debug", "autograd.kernels"}
HEAVY = ("numba", "regex", "rich", "tyro", "matplotlib", "cupy", "safetensors", "tinyllm.data")


def source_files(folder="."):
    """All Python files of the two packages and the examples, as paths relative to the root."""
    found = [path for package in ("autograd", "tinyllm", "examples") for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if path.is_relative_to(ROOT / folder))


FILES = source_files()
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imports(source, modules, package=""):
    """The (module, name or None) pairs that a source text imports, wherever in it.

    `from a import b` where a.b is a module imports that module: ("a.b", None).
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            base = (parent + (node.module or "")).rstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner, None) if inner in modules else (base, alias.name)


def imports_of(path):
    package = ".".join(path.parent.parts)
    return list(imports((ROOT / path).read_text(encoding="utf-8"), MODULES, package))


def room_of(module):
    """tinyllm.data.corpora -> "data"; None for tinyllm itself and for what is not ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tinyllm" and len(parts) > 1 else None


def climbs(room, imported):
    """Whether importing module `imported` from a file in `room` breaks the rule of the floors."""
    other = room_of(imported)
    return (
        other is not None and other != room and FLOOR_OF[other] >= FLOOR_OF[room] and other not in ("errors", "files")
    )


def foreign_to(path, module, name):
    """Why a file of tinyllm may not import this of autograd, or None."""
    if module.split(".")[0] != "autograd":
        return None
    if module not in PUBLIC_AUTOGRAD:
        return f"{path} imports {module}, which is autograd's own affair"
    if name and name.startswith("_"):
        return f"{path} imports {name} from {module}: a private name"
    return None


@pytest.mark.parametrize("path", source_files("tinyllm"), ids=str)
def test_rooms_import_from_floors_below(path):
    room = room_of(".".join(path.with_suffix("").parts))
    assert room in FLOOR_OF or room == "__init__", f"{path}: {room} has no floor; give it one in FLOORS"
    if room != "__init__":
        climbing = [module for module, _ in imports_of(path) if climbs(room, module)]
        assert not climbing, f"{path} ({room}) imports {climbing}: not on a floor below"


@pytest.mark.parametrize("path", source_files("tinyllm"), ids=str)
def test_tinyllm_uses_public_names_of_autograd(path):
    assert not [reason for module, name in imports_of(path) if (reason := foreign_to(path, module, name))]


@pytest.mark.parametrize("path", source_files("autograd"), ids=str)
def test_autograd_knows_nothing_above_it(path):
    tops = {module.split(".")[0] for module, _ in imports_of(path)}
    assert not tops & {"tinyllm", "examples", "tests"}


def test_nothing_imports_examples():
    for path in FILES:
        assert not [module for module, _ in imports_of(path) if module.split(".")[0] == "examples"], path


def circle(graph):
    """A list of nodes, each pointing at the next and the last at the first; None if there is none."""
    done = set()

    def walk(node, trail):
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return None
        done.add(node)
        return next((found for after in graph[node] if (found := walk(after, [*trail, node]))), None)

    return next((found for node in graph if (found := walk(node, []))), None)


def test_no_files_import_each_other():
    graph = {}
    for name, path in MODULES.items():
        # `from package import x` runs package/__init__.py; that a package gathers its own files is no circle.
        found = {module for module, _ in imports_of(path) if module in MODULES}
        graph[name] = sorted(module for module in found if not name.startswith(module + "."))
    assert circle(graph) is None


def test_no_file_is_a_drawer_for_everything():
    tests = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")]
    names = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in (*FILES, *tests) if path.stem in names]


def test_the_rules_catch_what_they_forbid():
    assert climbs("serving", "tinyllm.training.loop")
    assert climbs("models", "tinyllm.data")  # the same floor
    assert not climbs("training", "tinyllm.formats")
    assert not climbs("data", "tinyllm.data.corpora")
    assert foreign_to("x", "autograd.engine", "Node")
    assert foreign_to("x", "autograd", "_ops")
    assert not foreign_to("x", "autograd", "Tensor")
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) is None
    source = "from a.b import c, D\nimport e.f\ndef g():\n    from . import h\n    from .i import j\n"
    assert list(imports(source, {"a.b.c"}, "k.l")) == [
        ("a.b.c", None), ("a.b", "D"), ("e.f", None), ("k.l", "h"), ("k.l.i", "j"),
    ]  # fmt: skip


@pytest.mark.parametrize("package", ["autograd", "tinyllm", "tinyllm.commands.main"])
def test_importing_brings_in_nothing_heavy(package):
    code = f"import sys, {package}; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(printed.split())
    assert package in loaded
    assert not loaded & set(HEAVY)
    assert package == "autograd" or "numpy" not in loaded  # tinyllm's front door does not even need NumPy
