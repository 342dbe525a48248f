"""The mistakes that are made, and those that are not."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import interval
from tests.mutants.mutations import mutations
from tests.mutants.sql import conditions


def mutants(source: str) -> set[str]:
    """Every mutant of `source`."""
    return {each.applied(source.encode()).decode() for each in mutations("m.py", source.encode())}


@pytest.mark.parametrize(
    ("source", "mutant"),
    [
        ("def f(a, b): return a < b", "def f(a, b): return (a <= b)"),
        ("def f(a, b): return a and b", "def f(a, b): return (a or b)"),
        ("def f(a): return a + 1", "def f(a): return (a - 1)"),
        ("def f(a): return a + 1", "def f(a): return a + 2"),
        ("def f(a): return a + 1", "def f(a): return None"),
        ("def f(a): raise a", "def f(a): pass"),
        ("def f(a): a.b = 1", "def f(a): pass"),
        ("def f(a): g(a, b=1)", "def f(a): g(a)"),
        ("def f(a, b=True): pass", "def f(a, b=False): pass"),
        ("x = 1 if a else 2", "x = 1 if (not a) else 2"),
        ("def f(a):\n    if a:\n        g()", "def f(a):\n    if (not a):\n        g()"),
        ('x = "WHERE a = ? AND b = ?"', 'x = "WHERE a = ? OR b = ?"'),
        ('x = "WHERE a = ? AND b = ?"', 'x = "WHERE a = ? AND (b = ? OR 1 = 1)"'),
        ("x = f'WHERE a <= {b}'", "x = f'WHERE a < {b}'"),
        ("# ü\nx = 1", "# ü\nx = 2"),
        ("raise A('x', hint=hint)", "raise A('x')"),
        ("raise A('what a day')", "pass"),
        ("LIMIT = 200", "LIMIT = 201"),
        ("class A(asyncio.Protocol):\n    def f(a): return a", "class A(asyncio.Protocol):\n    def f(a): return None"),
        ("CHUNK = 2 * 3", "CHUNK = (2 // 3)"),
        ("def f(a): log.info(a)", "def f(a): pass"),
    ],
)
def test_a_mistake(source: str, mutant: str) -> None:
    assert mutant in mutants(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""A module."""',
        "def f(a: int | None) -> str | None:\n    'What it does: 1 < 2.'",
        "import a\nfrom b import c",
        "x = 'words for people'",
        "__all__ = ['a']",
        "def f(): raise AssertionError(1, 'unreachable')",
        "T = TypeVar('T')",
        "def f(a): log.debug('what', a + 1)",
        "class A(Protocol):\n    def f(a): return a",
        "class A(Protocol[T]):\n    def f(a): return a",
        "CHUNK = 200",
        "RECLAIM_BATCH = 200",
        "f = lru_cache(maxsize=256)",
    ],
)
def test_nothing_to_be_mistaken_in(source: str) -> None:
    assert mutants(source) == set()


def test_a_hint_is_a_text_for_people() -> None:
    assert mutants("raise A(hint='say this')") == mutants("raise A(hint=f'say what {x}')") == {"pass"}


def test_a_condition_ends_where_the_next_word_of_sql_begins() -> None:
    sql = "WHERE a = ? AND (b = ? OR c IN (1, 2)) AND d IS NULL RETURNING e"
    assert [each.what.partition(" -> ")[0] for each in conditions(sql)] == [
        "a = ?",
        "(b = ? OR c IN (1, 2))",
        "c IN (1, 2)",
        "d IS NULL",
    ]


def test_how_sure_one_is_of_a_share() -> None:
    low, high = interval(85, 100)
    assert (round(low, 3), round(high, 3)) == (0.767, 0.907)
    assert interval(0, 10)[0] == pytest.approx(0)
