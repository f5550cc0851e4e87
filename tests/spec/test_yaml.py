"""YAML 1.2 in and out: what is dumped reads back, bit for bit."""

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.tree import Items, Table
from transformer_kit.spec.yaml import dump, parse

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
WORDS = "no yes on null ~ 1e5 1e-5 +1e5 .5e3 5. 012 0x10 0o17 0b1 1_0 - 2020-01-01 12:30:45 true .inf .nan = << # ' *a"
TRAPS = st.sampled_from([*WORDS.split(), "", "- a", "a: b", '"', " x ", "a #b", "\n", "\t"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | TRAPS
KEYS = TEXT | TRAPS | st.integers(-9, 9)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=25
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types, in the same order."""
    if isinstance(one, dict):
        return isinstance(other, dict) and same([*one.items()], [*other.items()])
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@given(TREES)
@example(["\x85", "a\u2028b", "\u2029", "\r\n", "\ufeff", "\x00"])
@example({"a": 1e-05, "b": 5e-324, "c": 1e22, "d": float("inf"), "e": -0.0})
def test_what_is_dumped_reads_back(tree: Any) -> None:
    value, _ = parse(dump(tree), "page")
    assert same(value, tree)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("012", 12), ("0o17", 15), ("0x1F", 31), ("0b1", "0b1"),
        ("1_000", "1_000"), ("1e-5", 1e-5), ("1E5", 1e5), ("+3", 3), ("-3", -3), (".5", 0.5), ("5.", 5.0), ("~", None),
        ("null", None), ("True", True), ("FALSE", False), ("tRue", "tRue"), (".inf", math.inf), ("-.INF", -math.inf),
        ("12:30:45", "12:30:45"), ("2020-01-01", "2020-01-01"), ("'1'", "1"), ('"1"', "1"), ("٣", "٣"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    read, _ = parse(f"key: {text}", "page")
    assert same(read, {"key": value})


def test_not_a_number_is_one() -> None:
    value, _ = parse(dump({"x": math.nan}), "page")
    assert math.isnan(value["x"])


def test_every_key_value_and_item_knows_its_place() -> None:
    value, mark = parse("# a spec\na:\n  - b: 1\n    c: [x, {d: 2}]\n", "page")
    assert isinstance(value, Table)
    assert str(mark) == "page:2:1"
    assert isinstance(value["a"], Items)
    inner = value["a"][0]
    assert [str(m) for m in (value.keys_at["a"], value["a"].values_at[0])] == ["page:2:1", "page:3:5"]
    assert (str(inner.keys_at["c"]), str(inner.values_at["c"])) == ("page:4:5", "page:4:8")
    assert inner["c"][1].keys_at["d"].path == "a.0.c.1.d"


def test_an_alias_is_a_copy() -> None:
    value, _ = parse("a: &x {n: [1]}\nb: *x\n", "page")
    assert value["a"] == value["b"]
    value["a"]["n"].append(2)
    assert value["b"] == {"n": [1]}


def test_aliases_below_the_bound_are_welcome_and_counted_in_full() -> None:
    row = ", ".join(["x"] * 100)
    assert len(parse(f"a: &a [{row}]\nb: [{', '.join(['*a'] * 100)}]", "page")[0]["b"]) == 100
    with pytest.raises(SpecError, match="aliases counted in full"):
        parse(f"a: &a [{row}]\nb: [{', '.join(['*a'] * 300)}]", "page")


def test_so_many_mistakes_are_enough() -> None:
    with pytest.raises(SpecError) as caught:
        parse("a: 0\n" * 9999, "page")
    assert len(caught.value.problems) == 50
