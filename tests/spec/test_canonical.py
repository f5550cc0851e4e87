"""The canonical form says the same as the spec it was made from, whatever that looked like."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spec.pages import PAGE, Pages
from transformer_kit.spec import files
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import RunSpec, Spec
from transformer_kit.spec.yaml import dump, parse

BLOCK: dict[str, Any] = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4}, "ffn": "mlp"}
CHANGE = st.sampled_from(
    [
        {},
        {"ffn": "gated"},
        {"ffn": {"d_ff": 8}},
        {"mixer": {"window": 3}},
        {"mixer": {"softcap": 9.0}},
        {"norm": "rms_norm"},
        {"type": "parallel", "mixer": BLOCK["mixer"], "ffn": "mlp"},
    ]
)


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """Five keys that go together."""
    kinds = draw(st.dictionaries(st.sampled_from(["local", "wide", "odd"]), CHANGE))
    pattern = draw(st.lists(st.sampled_from(["block", *kinds]), min_size=1, max_size=4))
    count = len(pattern) * draw(st.integers(1, 3))
    at = draw(st.dictionaries(st.integers(-1, count - 2 if count > 1 else -1), CHANGE, max_size=2))
    return {"count": count, "block": BLOCK, "kinds": kinds, "pattern": pattern, "at": at}


def page(**model: Any) -> dict[str, Any]:
    """A small page."""
    sizes = {"vocab_size": 64, "d_model": 32, "max_seq_len": 16}
    return {"model": {**sizes, "layers": {"count": 2, "block": BLOCK}, **model}}


@settings(max_examples=50)
@given(layers())
def test_the_canonical_form_reads_back_as_an_equal_spec(stack: dict[str, Any]) -> None:
    spec = Spec.of(page(layers=stack))
    again = Spec.of(parse(dump(spec.resolved()), "spec.yaml")[0])
    assert again == spec
    assert again.hash == spec.hash
    assert hash(again) == hash(spec)
    assert again.resolved() == spec.resolved()


@pytest.mark.parametrize("kind", ["models", "runs"])
def test_shipped_specs_read_back(kind: str) -> None:
    for name in files.names(kind):
        spec = read(name)
        again = type(spec).of(spec.resolved())
        assert (again, again.hash) == (spec, spec.hash)
        assert isinstance(spec, RunSpec) == (kind == "runs")


def test_comments_order_and_shorthand_mean_nothing(pages: Pages) -> None:
    other = """\
# the same, by another hand
model:
  layers:
    block:
      ffn: {d_ff: 0x30, type: gated, activation: {type: silu}, bias: false}
      mixer: {n_heads: 4, type: attention, window: null}
      type: pre_norm
    count: 4
    pattern: [block*2]
  position: {type: rope, theta: 10000}
  max_seq_len: 16
  dropout: 0
  d_model: 32
  vocab_size: 64
"""
    assert pages.read(other).hash == pages.read(pages.text).hash
    assert pages.read(other) == pages.read(pages.text)


CHANGES = [
    ("vocab_size: 64", "vocab_size: 65"), ("d_model: 32", "d_model: 64"), ("max_seq_len: 16", "max_seq_len: 17"),
    ("position: rope", "position: none"), ("position: rope", "position: {type: rope, theta: 9.0}"),
    ("position: rope", "dropout: 0.5"), ("position: rope", "position: rope\n  final_norm: rms_norm"),
    ("count: 4", "count: 5"), ("type: pre_norm", "type: post_norm"), ("n_heads: 4", "n_heads: 2"),
    ("n_heads: 4", "n_heads: 4, softcap: 3.0"), ("n_heads: 4", "n_heads: 4, bias: [q]"),
    ("d_ff: 48", "d_ff: 49"), ("d_ff: 48", "d_ff: 48, activation: gelu"),
    ("d_ff: 48}", "d_ff: 48}\n    at: {2: {ffn: {d_ff: 9}}}"),
    ("position: rope", "position: rope\n  head: {type: lm, tied: true}"),
    ("position: rope", "position: rope\n  init: gpt2"),
]  # fmt: skip


def test_every_change_changes_the_hash(pages: Pages) -> None:
    texts = [PAGE, *(pages.changed(old, new) for old, new in CHANGES)]
    assert len({pages.read(text).hash for text in texts}) == len(texts)


def test_the_order_of_unequal_layers_changes_the_hash() -> None:
    one, other = ({"count": 4, "block": BLOCK, "at": {i: {"ffn": "gated"}}} for i in (1, 2))
    assert Spec.of(page(layers=one)).hash != Spec.of(page(layers=other)).hash


def test_equality_is_about_what_a_page_says() -> None:
    assert Spec.of(page()) != Spec.of(page(dropout=0.1))
    assert Spec.of(page()) != "a spec"
    run = {**page(), "optimizer": {"type": "adamw", "lr": 1.0}, "train": {"steps": 1}}
    assert RunSpec.of(run) != Spec.of(page())
    assert RunSpec.of(run) != RunSpec.of({**run, "train": {"steps": 2}})


def test_specs_can_be_pickled_and_copied() -> None:
    spec = read("tutorial")
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)
