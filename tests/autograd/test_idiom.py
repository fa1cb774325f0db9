"""The idiom of `autograd/ops`, read from the source: what makes "the closure's free variables are what is saved" true.

Python closures see a name's last value, not the one it had when they were made. So a captured name is bound once, and
the closures are the last thing in a body.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from primitive_cases import CASES
from test_primitives import OURS, every_case

import autograd as ag
from autograd.engine import PRIMITIVES

ROOT = Path(ag.__file__).parent
OPS = sorted((ROOT / "ops").glob("*.py"))
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def names_bound(function):
    """Names a function binds in its own body, one entry for each time, and names it changes by `+=`."""
    arguments = function.args
    bound = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    bound += [a.arg for a in (arguments.vararg, arguments.kwarg) if a]
    augmented = []

    def visit(node):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.append(node.name)
            return
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            return
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            augmented.append((node.target.id, node.lineno))
            visit(node.value)
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            bound.append(node.id)
        for child in ast.iter_child_nodes(node):
            visit(child)

    for statement in function.body:
        visit(statement)
    return bound, augmented


def names_read_inside(function):
    """Names that functions nested in `function` take from it."""
    captured = set()
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, FUNCTION) and node is not function:
                own = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                own |= {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
                body = node.body if isinstance(node.body, list) else [node.body]
                reads = {n.id for part in body for n in ast.walk(part) if isinstance(n, ast.Name)}
                captured |= reads - own
    return captured


def violations(source):
    """What in this source would break the idiom, as sentences."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        nested = [s for s in ast.walk(function) if isinstance(s, ast.FunctionDef) and s is not function]
        if not nested:
            continue
        bound, augmented = names_bound(function)
        captured = names_read_inside(function) & set(bound)
        first = min(s.lineno for s in nested)
        for name in sorted(captured):
            if bound.count(name) > 1:
                found.append(f"{function.name}: {name}, which a closure captures, is bound {bound.count(name)} times")
        for name, line in augmented:
            if name in captured and line > first:
                found.append(f"{function.name}: {name} is changed after a closure captured it")
        if any(s not in function.body for s in nested):
            found.append(f"{function.name}: a closure is not at the top level of the body")
            continue
        *_, last = function.body
        tail = function.body[function.body.index(nested[0]) :]
        for statement in tail:
            is_tuple_of_closures = (
                isinstance(statement, ast.Assign)
                and ast.unparse(statement.targets[0]) == "vjp"
                and statement is tail[-2]
            )
            if not (statement in nested or is_tuple_of_closures or statement is last):
                found.append(f"{function.name}: `{ast.unparse(statement)}` stands among or after the closures")
        if not isinstance(last, ast.Return):
            found.append(f"{function.name}: a body with closures ends with `return y, vjp`")
        elif not ast.unparse(last).endswith(", vjp)") and function.name in PRIMITIVES:
            found.append(f"{function.name}: returns {ast.unparse(last.value)}, not (y, vjp)")
        before = tail[-2] if len(tail) > 1 else None
        defines_vjp = isinstance(before, ast.FunctionDef) and before.name == "vjp"
        assigns_vjp = isinstance(before, ast.Assign) and ast.unparse(before.targets[0]) == "vjp"
        if not (defines_vjp or assigns_vjp):
            found.append(f"{function.name}: vjp is not the last definition before the return")
    return found


@pytest.mark.parametrize("path", OPS, ids=lambda path: path.stem)
def test_vjp_is_defined_last_and_what_it_captures_is_bound_once(path):
    assert violations(path.read_text()) == []


GOOD = """
def op(x):
    y = x * 2
    y *= 3
    def vjp(dy):
        dy = dy * 6
        return dy * y,
    return y, vjp
"""


@pytest.mark.parametrize(
    ("line", "instead", "complaint"),
    [
        ("y *= 3", "y = y * 3", "y, which a closure captures, is bound 2 times"),
        ("y *= 3", "for y in x: pass", "bound 2 times"),
        ("y *= 3", "(y := 3)", "bound 2 times"),
        ("return y, vjp", "y *= 2\n    return y, vjp", "y is changed after"),
        ("return y, vjp", "y[0] = 2\n    return y, vjp", "stands among or after"),
        ("return y, vjp", "y = 2\n    return y, vjp", "bound 2 times"),
        ("return y, vjp", "def later(): pass\n    return y, vjp", "vjp is not the last definition"),
    ],
)
def test_the_idiom_test_sees_each_way_to_break_it(line, instead, complaint):
    assert violations(GOOD) == []
    assert any(complaint in sentence for sentence in violations(GOOD.replace(line, instead)))


def imports(path):
    """Modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports here"
            yield node.module


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_autograd_never_imports_tinyllm_and_never_asks_which_module_it_runs_on(path):
    assert not [name for name in imports(path) if name.partition(".")[0] == "tinyllm"]
    assert not re.search(r"\bxp is (not )?\w", path.read_text())


@pytest.mark.parametrize("path", OPS, ids=lambda path: path.stem)
def test_ops_import_only_engine_arrays_context_and_other_ops(path):
    ours = [name for name in imports(path) if name.partition(".")[0] == "autograd"]
    allowed = ("autograd.engine", "autograd.arrays", "autograd.context", "autograd.ops.")
    assert not [name for name in ours if not name.startswith(allowed)]
    others = {name.partition(".")[0] for name in imports(path)} - {"autograd"}
    assert others <= {"numpy", *sys.stdlib_module_names}


def test_autograd_imports_with_numpy_alone():
    script = (
        "import sys; block = ('numba', 'hypothesis', 'cupy', 'pytest', 'scipy', 'torch');"
        "sys.modules.update(dict.fromkeys(block));"
        "import autograd; autograd.testing.check_primitive(autograd.exp, autograd.testing.sample_array((2, 3)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT.parent)


SECTIONS = ("Equation", "Shapes", "Gradient", "Saves", "Cost")


@pytest.mark.parametrize("name", OURS)
def test_docstring_has_every_section_in_order(name):
    lines = inspect.getdoc(PRIMITIVES[name]).splitlines()
    starts = [line.split()[0] for line in lines if re.match(r"[A-Z]\w+ {2,}\S", line)]
    assert [s for s in starts if s in SECTIONS] == list(SECTIONS)


def says_it_saves(name):
    """The docstring's `Saves` line: a set of names for each closure, or one set under None for all together.

    "b (for da), a and b (for db): …": names before a "(for CLOSURE)" are what that closure saves; other brackets and
    what follows a colon are comment.
    """
    text = re.search(r"Saves +(.*?)\n *[A-Z]\w+ {2,}", inspect.getdoc(PRIMITIVES[name]), re.S)[1].partition(":")[0]
    said, rest = {}, text
    for names, closure in re.findall(r"(.*?)\(for (\w+)\)", text, re.S):
        said[closure] = words(names)
        rest = ""
    return said or {None: words(rest)}


def words(text):
    return set(re.findall(r"[^\W\d]\w*", re.sub(r"\([^()]*(\([^()]*\))?[^()]*\)", "", text))) - {"and", "or", "nothing"}


def arrays_captured(function):
    """Names of a closure's free variables that hold arrays, also inside tuples and through functions it captures."""
    cells = dict(zip(function.__code__.co_freevars, (c.cell_contents for c in function.__closure__ or ()), strict=True))

    def holds_array(value):
        if isinstance(value, tuple | list):
            return any(map(holds_array, value))
        return isinstance(value, np.ndarray | np.floating)  # an array without axes is a NumPy scalar after an op

    found = {name for name, value in cells.items() if holds_array(value)}
    for value in cells.values():
        if inspect.isfunction(value) and value.__closure__:
            found |= arrays_captured(value)
    return found


def really_saved(name, case):
    """Names of the arrays that the closures of this call keep alive: by closure, and all together under None."""
    options = case.options | ({"dtype": np.float64} if name == "cast" else {})
    options |= {"seed": 3} if name == "dropout" else {}
    wanted = tuple(i in case.floats() for i in range(len(case.inputs)))
    with ag.context.context.set(needs=wanted):
        _, vjp = PRIMITIVES[name].reference(*case.inputs, **options)
    closures = [f for f in (vjp if isinstance(vjp, tuple) else (vjp,)) if f is not None]
    by_closure = {f.__name__: arrays_captured(f) for f in closures}
    return by_closure | {None: set().union(*by_closure.values())}


@every_case
def test_nothing_is_saved_that_the_docstring_does_not_say(name, case):
    really = really_saved(name, case)
    for closure, said in says_it_saves(name).items():
        assert really[closure] <= said
    if None not in says_it_saves(name):
        assert {closure for closure, names in really.items() if names and closure} <= set(says_it_saves(name))


@pytest.mark.parametrize("name", OURS)
def test_everything_the_docstring_says_is_saved_is_saved(name):
    for closure, said in says_it_saves(name).items():
        assert said == set().union(*(really_saved(name, case)[closure] for case in CASES[name]))


def test_the_public_names_are_there():
    for name in ag.__all__:
        assert hasattr(ag, name)
    assert importlib.import_module("autograd.testing") is ag.testing
