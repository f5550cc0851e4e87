"""The one rule by which two values merge, and its laws."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from transformer_kit.spec.tree import difference, find, merge
from transformer_kit.spec.yaml import parse

NAMES = st.sampled_from(["a", "b", "c", "d"])
LEAVES = st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.none() | st.lists(st.integers(0, 2), max_size=2)
TYPED = st.sampled_from(["type", "a", "b", "c"])


def _parts(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    part = st.builds(lambda t, rest: {"type": t, **rest}, st.sampled_from(["p", "q"]), st.dictionaries(NAMES, inner))
    return st.dictionaries(NAMES, inner, max_size=3) | part


TREES = st.recursive(LEAVES, _parts, max_leaves=8)
PAGES = st.dictionaries(NAMES, TREES, max_size=4)
SHAPED = st.fixed_dictionaries(  # every tree has mappings at the same places, and no part changes its type
    {},
    optional={
        "a": LEAVES,
        "m": st.fixed_dictionaries({}, optional={"b": LEAVES, "n": st.dictionaries(NAMES, st.just(1))}),
    },
)


@given(TREES)
def test_nothing_on_top_changes_nothing(tree: Any) -> None:
    assert merge(tree, tree) == tree
    if isinstance(tree, dict):
        assert merge(tree, {}) == tree
        assert merge({}, tree) == tree


@given(PAGES, PAGES)
def test_laying_twice_is_laying_once(base: Any, over: Any) -> None:
    once = merge(base, over)
    assert merge(once, over) == once


@given(PAGES, PAGES)
def test_what_lies_on_top_is_seen(base: Any, over: Any) -> None:
    merged = merge(base, over)
    for key, value in over.items():
        if not isinstance(value, (dict, str)):
            assert merged[key] == value
    for key in base.keys() - over.keys():
        assert merged[key] == base[key]


@given(SHAPED, SHAPED, SHAPED)
def test_the_order_of_merging_does_not_matter_where_no_type_changes(a: Any, b: Any, c: Any) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(PAGES, PAGES)
def test_merging_changes_neither(base: Any, over: Any) -> None:
    before = repr((base, over))
    merge(base, over)
    assert repr((base, over)) == before


@given(PAGES, PAGES)
def test_the_difference_is_what_makes_one_the_other(base: Any, over: Any) -> None:
    merged = merge(base, over)
    assert merge(base, difference(base, merged)) == merged


def test_the_difference_is_small() -> None:
    base = {"ffn": {"type": "gated", "d_ff": 8, "bias": True}, "norm": None}
    assert difference(base, base) == {}
    assert difference(base, {"ffn": {"type": "gated", "d_ff": 9, "bias": True}, "norm": None}) == {"ffn": {"d_ff": 9}}
    assert difference(base, {"ffn": {"type": "gated", "d_ff": 8, "bias": 1}, "norm": None}) == {"ffn": {"bias": 1}}


def test_a_part_of_another_type_replaces_the_whole_part_and_says_so() -> None:
    dropped: list[str] = []
    base = {"ffn": {"type": "gated", "d_ff": 8, "bias": True, "activation": "silu"}}
    merged = merge(base, {"ffn": {"type": "mlp", "bias": False}}, dropped, "model")
    assert merged == {"ffn": {"type": "mlp", "bias": False}}
    assert dropped == ["model.ffn: 'mlp' replaces 'gated'; not carried over: d_ff, activation"]


def test_a_note_cites_the_line_that_replaces() -> None:
    dropped: list[str] = []
    base, _ = parse("ffn: {type: gated, d_ff: 8}", "base.yaml")
    over, _ = parse("\nffn: mlp", "page.yaml")
    assert merge(base, over, dropped) == {"ffn": {"type": "mlp"}}
    assert dropped == ["page.yaml:2:6: ffn: 'mlp' replaces 'gated'; not carried over: d_ff"]


def test_the_same_type_or_none_merges() -> None:
    base = {"ffn": {"type": "gated", "d_ff": 8}}
    assert merge(base, {"ffn": {"bias": True}}) == {"ffn": {"type": "gated", "d_ff": 8, "bias": True}}
    assert merge(base, {"ffn": {"type": "gated", "d_ff": 9}}) == {"ffn": {"type": "gated", "d_ff": 9}}
    assert merge(base, {"ffn": "gated"}) == base


def test_a_bare_name_is_the_mapping_it_stands_for() -> None:
    assert merge({"ffn": "gated"}, {"ffn": {"d_ff": 8}}) == {"ffn": {"type": "gated", "d_ff": 8}}
    assert merge({"ffn": "gated"}, {"ffn": {"type": "mlp", "d_ff": 8}}) == {"ffn": {"type": "mlp", "d_ff": 8}}
    assert merge({"ffn": "gated"}, {"ffn": "mlp"}) == {"ffn": "mlp"}


def test_lists_and_nothing_replace() -> None:
    assert merge({"x": [1, 2]}, {"x": [3]}) == {"x": [3]}
    assert merge({"x": {"a": 1}}, {"x": None}) == {"x": None}
    assert merge({"x": {"a": 1}}, {"x": [1]}) == {"x": [1]}


def test_merged_values_keep_their_places() -> None:
    base, _ = parse("ffn: gated\nnorm: {type: rms, eps: 1}", "base.yaml")
    over, _ = parse("ffn: {d_ff: 8}\nnorm: {eps: 2}", "page.yaml")
    merged = merge(base, over)
    places = {
        path: str(find(merged, path)) for path in (("ffn", "type"), ("ffn", "d_ff"), ("norm", "type"), ("norm", "eps"))
    }
    assert places == {
        ("ffn", "type"): "base.yaml:1:6",
        ("ffn", "d_ff"): "page.yaml:1:7",
        ("norm", "type"): "base.yaml:2:8",
        ("norm", "eps"): "page.yaml:2:8",
    }
