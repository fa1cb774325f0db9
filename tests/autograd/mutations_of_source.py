"""Wrong gradients made from the source of an op: one operator, term, factor, axis or constant of its backward changed.

What belongs to the backward is the closures, and those statements of the body whose results only closures read (`max`
works out there how equal maxima share). Functions of other ops that a pullback calls, such as `unbroadcast`, are
mutated as a copy that the backward of this op alone calls, since the forward may call the same function (`rope` does).

Not mutated is what is not calculus: dtypes (`astype`, `widen`, `dtype=`), memory (`out=`, `copy=`, arrays before they
are filled), and checks of arguments.
"""

import ast
import copy
import inspect
from contextlib import contextmanager
from typing import NamedTuple

from autograd.arrays import scatter_add
from autograd.engine import Primitive

FLIPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr}
OTHER_COMPARISONS = {
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OTHER_REDUCTION = {"sum": "mean", "mean": "sum"}
MOVES = ("reshape", "transpose", "swapaxes")  # methods that move elements
FILLS = ("arange", "empty", "empty_like", "ones", "zeros")  # functions that make an array
COPY = "backward_"  # what the name of a function begins with in the backward, if a copy of it is mutated
NO_CALCULUS = ("copy", "dtype", "kind", "out", "strict")  # keyword arguments


class Site(NamedTuple):
    """One change: `holder.field` (its entry `index`, if it is a list) becomes `new`."""

    function: str
    holder: ast.AST
    field: str
    index: int | None
    old: ast.AST
    new: ast.AST

    def __str__(self):
        """What it was and what it becomes; a number is shown with what stands around it."""
        shown = self.holder if is_number(self.old) else self.old
        before = ast.unparse(shown)
        with self.applied():
            after = ast.unparse(shown if shown is self.holder else self.new)
        return f"{self.function}: {before} -> {after}".replace(COPY, "")

    def put(self, node):
        if self.index is None:
            setattr(self.holder, self.field, node)
        else:
            getattr(self.holder, self.field)[self.index] = node

    @contextmanager
    def applied(self):
        self.put(self.new)
        try:
            yield
        finally:
            self.put(self.old)


class Program:
    """The source of an op as a tree whose backward can be changed, and compiled to take the place of the reference."""

    def __init__(self, reference):
        self.names = reference.__globals__
        self.bodies = [tree_of(reference)]  # the op's, and those it hands over to: gelu's are gelu_exact and gelu_tanh
        self.bodies += [tree_of(self.names[name]) for name in handed_over(self.bodies[0], self.names)]
        self.backward = [(body, statement) for body in self.bodies for statement in backward_of(body)]
        self.copies = {}  # name of a copy -> (the function, the tree of its copy)
        for call in [node for _, statement in self.backward for node in ast.walk(statement)]:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                call.func.id = self.copied(call.func.id)

    def copied(self, name):
        """Under which name the backward calls a function: a copy's if it can be mutated, else its own."""
        function = self.names.get(name)
        if not inspect.isfunction(function) or not (
            function is scatter_add or function.__module__.startswith("autograd.ops.")
        ):
            return name
        alias, tree = COPY + name, tree_of(function, COPY + name)
        if not any(sites_in(tree, name, ())):
            return name
        self.copies.setdefault(alias, (function, tree))
        return alias

    def sites(self):
        """Every change, in the order of the source."""
        calls = tuple(self.copies)
        for body, statement in self.backward:
            function = statement.name if isinstance(statement, ast.FunctionDef) else "body"
            label = f"{body.name}.{function}" if body is not self.bodies[0] else function
            if isinstance(statement, ast.FunctionDef):
                yield from sites_in(statement, label, calls)
            else:
                index = body.body.index(statement)
                yield from sites_at(body, "body", index, statement, label, calls)
        for function, tree in self.copies.values():
            yield from sites_in(tree, function.__name__, calls)

    def unparse(self):
        return "\n".join(map(ast.unparse, [*self.bodies, *(tree for _, tree in self.copies.values())]))

    def compile(self):
        """The reference, compiled from the tree as it stands now."""
        scope = dict(self.names)
        for alias, (function, tree) in self.copies.items():
            scope[alias] = compiled(tree, dict(function.__globals__))
        for body in reversed(self.bodies):
            compiled(body, scope)
        return scope[self.bodies[0].name]


def compiled(tree, scope):
    """A copy of the tree is compiled, since filling in the line numbers writes into it."""
    module = ast.fix_missing_locations(ast.Module([copy.deepcopy(tree)], []))
    exec(compile(module, f"<mutant of {tree.name}>", "exec"), scope)
    return scope[tree.name]


def tree_of(function, name=None):
    """A function's own tree, without decorators, so that compiling it registers nothing, and without docstring."""
    tree = ast.parse(inspect.getsource(function)).body[0]
    tree.decorator_list = []
    tree.name = name or tree.name
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return tree


def handed_over(body, names):
    """Functions of the module whose result a body returns as its own."""
    for node in ast.walk(body):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            name = node.value.func.id
            if inspect.isfunction(names.get(name)) and not isinstance(names[name], Primitive):
                yield name


def backward_of(body):
    """Statements of a body that its result y does not depend on: read from the end, nothing that y needs is in them."""
    *statements, end = body.body
    if not (isinstance(end, ast.Return) and isinstance(end.value, ast.Tuple)):
        return []  # gelu, which hands over
    needed, found = names_read(end.value.elts[0]), []
    for statement in reversed(statements):
        if isinstance(statement, ast.FunctionDef):
            found.append(statement)
            continue
        targets = names_bound(statement)
        if targets and not targets & needed and not any(isinstance(n, ast.Raise) for n in ast.walk(statement)):
            if targets != {"vjp"}:
                found.append(statement)
        else:
            if isinstance(statement, ast.Assign) and not isinstance(statement.targets[0], ast.Subscript):
                needed -= targets
            needed |= names_read(statement)
    return found[::-1]


def names_read(node):
    """Names whose values a statement takes, among them `total` in `total += 1`."""
    augmented = {n.target.id for n in ast.walk(node) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    return augmented | {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def names_bound(node):
    """Names that a statement binds, or into whose arrays it writes."""
    bound = set()
    for statement in ast.walk(node):
        if isinstance(statement, ast.Assign | ast.AugAssign):
            for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                while isinstance(target, ast.Subscript):
                    target = target.value
                bound |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
    return bound


def sites_in(node, function, calls):
    """Changes of what stands below a node."""
    for field, value in ast.iter_fields(node):
        if field in ("args", "targets", "target") and not isinstance(node, ast.Call):
            continue  # the arguments of a function, and where results go
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from sites_at(node, field, index, child, function, calls)


def sites_at(holder, field, index, node, function, calls):
    """Changes of a node and of what stands below it."""
    if is_no_calculus(node):
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "astype":
        yield from sites_at(node.func, "value", None, node.func.value, function, calls)
        return
    for new in alternatives(node, calls):
        yield Site(function, holder, field, index, node, new)
    if not is_number(node):
        yield from sites_in(node, function, calls)


def is_no_calculus(node):
    """True for what decides about dtypes and memory."""
    if isinstance(node, ast.keyword):
        return node.arg in NO_CALCULUS
    if isinstance(node, ast.IfExp):
        return "out" in names_read(node.test)
    return False


def is_number(node):
    """1, 0.5 and -1, but not True."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def alternatives(node, calls):
    """What could stand in the place of a node and would be wrong. calls: functions whose calls may be left out."""
    if is_number(node):
        value = ast.literal_eval(node)
        yield ast.Constant(2 * value or 1.0 if isinstance(value, float) else value + 1)
    elif isinstance(node, ast.BinOp):
        yield from other_operations(node)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Compare):
        for op in OTHER_COMPARISONS.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [op()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield from node.values
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in FLIPPED:
            yield ast.AugAssign(node.target, FLIPPED[type(node.op)](), node.value)
        yield ast.Pass()
        if isinstance(node.target, ast.Subscript):
            yield ast.Assign([node.target], node.value, lineno=node.lineno)
    elif isinstance(node, ast.Call):
        yield from other_calls(node, calls)


def other_operations(node):
    """Another operator; one operand alone."""
    left, op, right = node.left, node.op, node.right
    yield left
    if isinstance(left, ast.Tuple):
        return
    if type(op) in FLIPPED:
        yield ast.BinOp(left, FLIPPED[type(op)](), right)
    if isinstance(op, ast.Sub):
        yield ast.UnaryOp(ast.USub(), right)
    elif isinstance(op, ast.Div) and not is_number(left):
        yield ast.BinOp(ast.Constant(1), op, right)
    elif isinstance(op, ast.Add | ast.Mult):
        yield right


def other_calls(node, calls):
    """Another function, another axis, branches or operands exchanged, no call at all."""
    function, arguments = node.func, node.args
    for i, argument in enumerate(arguments):
        if isinstance(argument, ast.Name) and argument.id == "axis" and not is_builtin(function):
            for other in (ast.Constant(0), ast.UnaryOp(ast.USub(), ast.Constant(1))):
                yield ast.Call(function, [*arguments[:i], other, *arguments[i + 1 :]], node.keywords)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg == "keepdims":
            yield ast.Call(function, arguments, [*node.keywords[:i], *node.keywords[i + 1 :]])
    if isinstance(function, ast.Name):
        if function.id in calls:
            yield arguments[0]
        elif function.id == "product":
            yield ast.Call(function, arguments[::-1], node.keywords)
        elif function.id == "slice" and not isinstance(arguments[0], ast.Constant):
            shifted = [
                a if isinstance(a, ast.Constant) else ast.BinOp(a, ast.Add(), ast.Constant(1)) for a in arguments
            ]
            yield ast.Call(function, shifted, [])
    elif not isinstance(function, ast.Attribute):
        return
    elif isinstance(function.value, ast.Name) and function.value.id == "xp":
        if function.attr == "where":
            condition, one, other = arguments
            yield ast.Call(function, [condition, other, one], [])
            yield from (one, other)
        elif function.attr not in FILLS and arguments:
            yield arguments[0]
    elif function.attr in OTHER_REDUCTION:
        other = ast.Attribute(function.value, OTHER_REDUCTION[function.attr], ast.Load())
        yield ast.Call(other, arguments, node.keywords)
        yield function.value
    elif function.attr in MOVES:
        yield function.value


def is_builtin(function):
    return isinstance(function, ast.Name) and function.id in ("isinstance", "len", "slice", "tuple")


def mutants_of_source(reference, known=()):
    """(name, how to make it) for every change; two that read the same are one, and equal names are numbered.

    known: texts of the op that are mutants already, and are left out.
    """
    program = Program(reference)
    seen, names = {program.unparse()}, {}
    for site in program.sites():
        with site.applied():
            text, text_of_op = program.unparse(), ast.unparse(program.bodies[0]).replace(COPY, "")
        if text in seen or text_of_op in known:
            continue
        seen.add(text)
        name = str(site)
        names[name] = names.get(name, 0) + 1
        yield (name if names[name] == 1 else f"{name} [{names[name]}]"), lambda site=site: compiled_with(program, site)


def compiled_with(program, site):
    with site.applied():
        return program.compile()
