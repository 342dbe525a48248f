"""Every small mistake that can be made in a module, as an edit of its source: what is compared, computed, returned,
done, given and required; and in its SQL.

Texts for people are left alone, and so are annotations and docstrings. So is what cannot change what the program does,
by its construction and not by anybody's judgement of a survivor:

- `raise AssertionError`, which says that a line is never reached
- `hint=` with words: a text for people, like every other (without words, as in `hint=hint`, it is not left alone)
- `maxsize=` of a cache, and the numbers of BATCHES: how much at a time, or how much is kept. With another number the
  same is done in other steps
- the name of a `TypeVar`, and a line of the log at DEBUG, which no document promises
- `strict=False` of `zip`, which is what it does without
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

from tests.mutants import sql

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}

BATCHES = frozenset({"CHUNK", "EXPIRE_BATCH", "LAG", "RECLAIM_BATCH", "ROWS_AT_ONCE", "SUSPECTS"})
"""Constants whose number alone (and only as `NAME = number`) is left alone."""


class Mutation(NamedTuple):
    """One mistake: `start:stop` of the source becomes `text`. Whoever runs one of `lines` may notice it, and where
    those are run while the module is imported, whoever uses one of `names`.
    """

    module: str
    line: int
    start: int
    stop: int
    text: str
    what: str
    lines: frozenset[int] = frozenset()
    names: tuple[str, ...] = ()

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.what}"


def mutations(module: str, source: bytes) -> list[Mutation]:
    """All of them, in the order of the source, each once, and each of them Python."""
    found: dict[tuple[int, int, str], Mutation] = {}
    for each in _Finder(module, source).find():
        found.setdefault((each.start, each.stop, each.text), each)
    return [each for _, each in sorted(found.items()) if _is_python(each.applied(source))]


def _is_python(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


class _Finder:
    def __init__(self, module: str, source: bytes) -> None:
        self._module, self._source = module, source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._names: tuple[str, ...] = ()
        self._statement_line = 0

    def find(self) -> Iterator[Mutation]:
        for statement in ast.parse(self._source).body:
            if named(statement) == ("__all__",) or _is_of_no_consequence(statement):
                continue
            self._names = named(statement)
            yield from self._statement(statement)

    def _mutation(self, node: ast.expr | ast.stmt | ast.keyword, text: str, what: str = "") -> Mutation:
        start, stop = self._span(node)
        before = " ".join(self._source[start:stop].decode().split())
        what = what or f"{before[:70]} -> {text[:70]}"
        return Mutation(self._module, node.lineno, start, stop, text, what, self._lines_of(node), self._names)

    def _lines_of(self, node: ast.expr | ast.stmt | ast.keyword) -> frozenset[int]:
        return frozenset({self._statement_line, *range(node.lineno, (node.end_lineno or node.lineno) + 1)})

    def _span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.lineno - 1] + node.col_offset, self._lines[node.end_lineno - 1] + node.end_col_offset

    # -- statements

    def _statement(self, node: ast.stmt) -> Iterator[Mutation]:  # noqa: C901 -- a case a kind
        self._statement_line = node.lineno
        if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or _is_of_no_consequence(node):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for default in (*node.args.defaults, *(each for each in node.args.kw_defaults if each)):
                yield from self._expression(default)
            for each in node.body:
                yield from self._statement(each)
        elif isinstance(node, ast.ClassDef):
            if not any(ast.unparse(base).partition("[")[0] == "Protocol" for base in node.bases):
                for each in node.body:
                    self._names = named(each)
                    yield from self._statement(each)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for each in node.orelse:
                yield from self._statement(each)
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Global | ast.Nonlocal | ast.Pass):
            yield from self._removal(node)
            if isinstance(node, ast.If | ast.While) and _is_plain(node.test):
                yield self._mutation(node.test, f"(not {ast.unparse(node.test)})")
            yield from self._parts(node)

    def _removal(self, node: ast.stmt) -> Iterator[Mutation]:
        match node:
            case ast.Expr(value=ast.Yield(value=None)):
                return
            case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Delete():
                yield self._mutation(node, "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield self._mutation(node, "pass")
            case ast.Break():
                yield self._mutation(node, "continue")
            case ast.Continue():
                yield self._mutation(node, "break")
            case ast.Return(value=ast.expr() as value) if not _is(value, None):
                yield self._mutation(value, "None")

    def _parts(self, node: ast.AST) -> Iterator[Mutation]:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases"):
                continue
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, ast.stmt):
                    yield from self._statement(each)
                elif isinstance(each, ast.expr):
                    yield from self._expression(each)
                elif isinstance(each, ast.AST) and not (isinstance(each, ast.keyword) and each.arg == "maxsize"):
                    yield from self._parts(each)

    # -- expressions

    def _expression(self, node: ast.expr) -> Iterator[Mutation]:  # noqa: C901 -- a case a kind
        if isinstance(node, ast.Constant | ast.JoinedStr):
            yield from self._constant(node)
            return
        match node:
            case ast.Compare(ops=[op], left=left, comparators=[right]) if type(op) in _COMPARED:
                changed: ast.expr = ast.Compare(left, [_COMPARED[type(op)]()], [right])
                yield self._mutation(node, f"({ast.unparse(changed)})")
            case ast.Compare(ops=ops):
                for number, op in enumerate(ops):
                    other = copy.deepcopy(node)
                    other.ops[number] = _COMPARED[type(op)]()
                    yield self._mutation(node, f"({ast.unparse(other)})")
            case ast.BoolOp(op=operator, values=values):
                changed = ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
                yield self._mutation(node, f"({ast.unparse(changed)})")
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                yield self._mutation(node, f"({ast.unparse(operand)})")
            case ast.BinOp(op=arithmetic) if type(arithmetic) in _COMPUTED:
                changed = ast.BinOp(node.left, _COMPUTED[type(arithmetic)](), node.right)
                yield self._mutation(node, f"({ast.unparse(changed)})")
            case ast.Call():
                for keyword in (each for each in node.keywords if each.arg and not _is_indifferent(each)):
                    less = copy.deepcopy(node)
                    less.keywords = [each for each in less.keywords if each.arg != keyword.arg]
                    yield self._mutation(node, ast.unparse(less), f"{ast.unparse(node)[:60]}: without {keyword.arg}=")
        for test in _tests_in(node):
            yield self._mutation(test, f"(not {ast.unparse(test)})")
        yield from self._parts(node)

    def _constant(self, node: ast.Constant | ast.JoinedStr) -> Iterator[Mutation]:
        start, stop = self._span(node)
        raw = self._source[start:stop].decode()
        value = node.value if isinstance(node, ast.Constant) else raw
        if isinstance(value, bool):
            yield self._mutation(node, str(not value))
        elif isinstance(value, int | float) and not isinstance(value, complex):
            yield self._mutation(node, str(value + 1))
        elif isinstance(value, str) and sql.is_sql(value):
            for change in sql.changes(raw):
                line = node.lineno + raw.count("\n", 0, change.start)
                first, last = (start + len(raw[:at].encode()) for at in (change.start, change.stop))
                what, lines = "SQL: " + " ".join(change.what.split()), self._lines_of(node)
                yield Mutation(self._module, line, first, last, change.text, what, lines, self._names)
        elif isinstance(node, ast.Constant) and isinstance(value, str | bytes) and value and not _is_prose(value):
            yield self._mutation(node, repr("XX" + value if isinstance(value, str) else b"XX" + value))


def _is_of_no_consequence(statement: ast.stmt) -> bool:
    """See the top."""
    match statement:
        case ast.Raise(exc=ast.Call(func=ast.Name("AssertionError"))):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name("TypeVar"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name("log"), attr="debug"))):
            return True
        case ast.Assign(targets=[ast.Name(name)], value=ast.Constant(int())):
            return name in BATCHES
    return False


def _is_indifferent(keyword: ast.keyword) -> bool:
    texts = [each.value for each in ast.walk(keyword.value) if isinstance(each, ast.Constant)]
    is_text = isinstance(keyword.value, ast.Constant | ast.JoinedStr | ast.BinOp)
    words = is_text and any(isinstance(each, str) and _is_prose(each) for each in texts)
    as_without = keyword.arg == "strict" and _is(keyword.value, False)
    return keyword.arg == "maxsize" or as_without or (keyword.arg == "hint" and words)


def _is_prose(value: str | bytes) -> bool:
    return isinstance(value, str) and " " in value.strip()


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _tests_in(node: ast.expr) -> Iterator[ast.expr]:
    """Conditions that nothing else here turns round."""
    tests: list[ast.expr] = []
    if isinstance(node, ast.IfExp):
        tests = [node.test]
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        tests = [each for generator in node.generators for each in generator.ifs]
    return filter(_is_plain, tests)


def _is_plain(test: ast.expr) -> bool:
    return isinstance(test, ast.Name | ast.Attribute | ast.Call)


def named(statement: ast.stmt) -> tuple[str, ...]:
    """What a statement of a module gives a name to, but functions and classes."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return tuple(each.id for each in targets if isinstance(each, ast.Name))
