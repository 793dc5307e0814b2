"""Small changes of a source text, each of which some test should notice.

Not changed: annotations, docstrings and other strings, imports, decorators, ``__all__``, ``assert``, what errors say,
and what only a GPU's speed depends on. The changed text is a file again, from which Triton reads its kernels.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: (r"is\s+not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: (r"not\s+in", ("in",)),
}
OPPOSITES = [
    ("min", "max"),
    ("amin", "amax"),
    ("minimum", "maximum"),
    ("any", "all"),
    ("floor", "ceil"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("new_zeros", "new_ones"),
    ("isposinf", "isneginf"),
    ("ge", "gt"),
    ("le", "lt"),
]
OPPOSITE = {**dict(OPPOSITES), **{b: a for a, b in OPPOSITES}}
ONLY_SPEED = ("warps", "stages", "num_warps", "num_stages")  # arguments that no result depends on


@dataclass(frozen=True)
class Change:
    """One change: the bytes from ``start`` to ``stop`` become ``text``.

    Attributes:
        kind: What was changed.
        place: The function or class that holds it, as Python qualifies it, or the module's variable.
        lines: The first and the last line of the statement, from 1.
        start: Where it begins, in bytes.
        stop: Where it ends.
        old: What stood there.
        text: What stands there now.
    """

    kind: str
    place: str
    lines: tuple[int, int]
    start: int
    stop: int
    old: str
    text: str

    def apply(self, source: str) -> str:
        """The changed text, which may not parse."""
        whole = source.encode()
        return (whole[: self.start] + self.text.encode() + whole[self.stop :]).decode()


def changes_of(source: str) -> list[Change]:
    """All changes of a source text, in its order. Some do not parse, which takes longer to find out than to make them.

    Example:
        >>> source = "def first(x: int | None = 0):\\n    return min(x, 2) + 1 if x else -1\\n"
        >>> for change in changes_of(source):
        ...     print(change.kind, repr(change.old), "->", repr(change.text))
        constant '0' -> '1'
        constant '0' -> '-1'
        condition 'x' -> '(not (x))'
        arithmetic '+' -> '-'
        opposite 'min' -> 'max'
        constant '2' -> '3'
        constant '2' -> '1'
        constant '1' -> '2'
        constant '1' -> '0'
        constant '-1' -> '0'
        constant '-1' -> '-2'
    """
    return list(_Reader(source).read())


class _Reader:
    """Walks a module and yields its changes."""

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.source = source.encode()
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.place: tuple[str, ...] = ()
        self.lines = (1, 1)

    def read(self) -> Iterator[Change]:
        for statement in self.tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    self.place = (name,)
            yield from self.visit(statement)
            self.place = ()

    def start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def stop(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        return self.source[self.start(node) : self.stop(node)].decode()

    def change(self, kind: str, start: int, stop: int, text: str) -> Change:
        old = self.source[start:stop].decode()
        return Change(kind, ".".join(self.place), self.lines, start, stop, old, text)

    def between(self, kind: str, left: ast.expr, right: ast.expr, token: str, *texts: str) -> Iterator[Change]:
        """Changes of an operator, which stands between its operands, perhaps with parentheses and comments."""
        gap = self.source[self.stop(left) : self.start(right)]
        gap = re.sub(rb"#[^\n]*", lambda comment: b" " * len(comment[0]), gap)
        found = re.search(token.encode(), gap)
        assert found is not None, (token, gap)
        for text in texts:
            yield self.change(kind, self.stop(left) + found.start(), self.stop(left) + found.end(), text)

    def visit(self, node: ast.AST) -> Iterator[Change]:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                yield from self.visit_definition(node)
            case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.JoinedStr():
                return
            case ast.Expr(value=ast.Constant()):  # a docstring, or an ellipsis
                return
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                return
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return
            case ast.stmt():
                yield from self.visit_statement(node)
            case ast.expr():
                yield from self.visit_expression(node)
            case _:
                yield from self.visit_children(node)

    def visit_children(self, node: ast.AST) -> Iterator[Change]:
        for child in ast.iter_child_nodes(node):
            yield from self.visit(child)

    def visit_definition(self, node: ast.FunctionDef | ast.ClassDef) -> Iterator[Change]:
        outer, self.place = self.place, (*self.place, node.name)
        if isinstance(node, ast.FunctionDef):
            self.lines = (node.lineno, node.body[0].lineno - 1)
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    yield from self.visit(default)
        for statement in node.body:
            yield from self.visit(statement)
        self.place = outer

    def visit_statement(self, node: ast.stmt) -> Iterator[Change]:
        outer, self.lines = self.lines, (node.lineno, self.last_line(node))
        match node:
            case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break() | ast.AugAssign():
                yield self.change("statement", self.start(node), self.stop(node), "pass")
            case ast.Assign() if self.reassigns(node):
                yield self.change("statement", self.start(node), self.stop(node), "pass")
            case ast.If() if not isinstance(node.test, ast.Compare | ast.UnaryOp | ast.BoolOp):
                yield self.negated(node.test)
        match node:
            case ast.Raise():
                pass  # what it says is not changed
            case ast.AugAssign():
                token, text = ARITHMETIC[type(node.op)]
                yield from self.between("arithmetic", node.target, node.value, re.escape(token + "="), text + "=")
                yield from self.visit(node.value)
            case ast.AnnAssign():
                if node.value is not None:
                    yield from self.visit(node.value)
            case _:
                yield from self.visit_children(node)
        self.lines = outer

    def last_line(self, node: ast.stmt) -> int:
        """Of what the statement says before its block, if it has one."""
        match node:
            case ast.If() | ast.For() | ast.While() | ast.With() | ast.Try():
                return max(node.lineno, node.body[0].lineno - 1)
            case ast.Match():
                return node.lineno
        return node.end_lineno or node.lineno

    def reassigns(self, node: ast.Assign) -> bool:
        """Whether the new value is made of the old one, as in ``x = x.contiguous()``: without it, x is as it was."""
        targets = [ast.unparse(x) for x in node.targets]
        return any(isinstance(x, ast.Name) and ast.unparse(x) in targets for x in ast.walk(node.value))

    def negated(self, test: ast.expr) -> Change:
        return self.change("condition", self.start(test), self.stop(test), f"(not ({self.span(test)}))")

    def visit_expression(self, node: ast.expr) -> Iterator[Change]:
        match node:
            case ast.BinOp(op=ast.BitOr(), right=ast.Subscript() | ast.Constant(value=None)):
                return  # a type
            case ast.BinOp(op=op) if type(op) in ARITHMETIC:
                token, text = ARITHMETIC[type(op)]
                yield from self.between("arithmetic", node.left, node.right, re.escape(token), text)
            case ast.Compare():
                for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                    token, texts = COMPARISONS[type(op)]
                    yield from self.between("comparison", left, right, token, *texts)
            case ast.BoolOp():
                token, text = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                for left, right in pairwise(node.values):
                    yield from self.between("boolean", left, right, rf"\b{token}\b", text)
            case ast.UnaryOp(op=ast.Not()):
                yield self.change("boolean", self.start(node), self.start(node) + 3, "")
            case ast.UnaryOp(op=ast.Invert() | ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
                yield self.change("arithmetic", self.start(node), self.start(node) + 1, "")
            case ast.IfExp(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp | ast.BoolOp):
                yield self.negated(test)
            case ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
                for text in _other_constants(ast.literal_eval(node)):
                    yield self.change("constant", self.start(node), self.stop(node), text)
                return
            case ast.Call():
                yield from self.visit_call(node)
                return
        yield from self.visit_children(node)

    def visit_call(self, node: ast.Call) -> Iterator[Change]:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
        if name in OPPOSITE:
            stop = self.stop(function)
            yield self.change("opposite", stop - len(name), stop, OPPOSITE[name])
        keywords = [keyword for keyword in node.keywords if keyword.arg not in ONLY_SPEED]
        named = [keyword for keyword in keywords if keyword.arg is not None]
        for keyword in named:
            comma = re.match(rb"\s*,", self.source[self.stop(keyword) :])
            stop = self.stop(keyword) + (len(comma[0]) if comma else 0)
            yield self.change("argument left out", self.start(keyword), stop, "")
        for first, second in pairwise(named):
            swapped = f"{first.arg}={self.span(second.value)}, {second.arg}={self.span(first.value)}"
            if self.span(first.value) != self.span(second.value):
                yield self.change("arguments swapped", self.start(first), self.stop(second), swapped)
        yield from self.visit(function)
        arguments = node.args if name != "isinstance" else node.args[:1]  # the second is a type
        for argument in (*arguments, *(keyword.value for keyword in keywords)):
            yield from self.visit(argument)


def _other_constants(value: object) -> tuple[str, ...]:
    match value:
        case bool():
            return (str(not value),)
        case int():
            return str(value + 1), str(value - 1)
        case float() if value == 0 or abs(value) == float("inf"):
            return ("1.0",)
        case float():
            return str(value / 2 if abs(value) > 1e6 else value + 1), str(-value)
        case _:
            return ()


def extents_of(source: str) -> dict[str, tuple[int, int]]:
    """First and last line of every function and class by its qualified name; of the whole text by "".

    Example:
        >>> extents_of("class A:\\n    def f(self):\\n        return 1\\n")
        {'': (1, 3), 'A': (1, 3), 'A.f': (2, 3)}
    """
    tree = ast.parse(source)
    found = {"": (1, len(source.splitlines()))}

    def walk(node: ast.AST, place: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            inner = place
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = (*place, child.name)
                found[".".join(inner)] = (child.lineno, child.end_lineno or child.lineno)
            walk(child, inner)

    walk(tree, ())
    return found
