"""Declarations and configs from strangers: includes that leave the folder or never end, and values of wrong types."""

import time
from pathlib import Path
from typing import Any

import pytest

from transformer_kit.convert.declaration import Declaration, read
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.folder import spec_of
from transformer_kit.spec.errors import SpecError

TEXT = """\
kit: 1
names: [heron]
classes: [HeronForCausalLM]
model: {vocab_size: 40, d_model: 8, max_seq_len: 16, dropout: %s}
block: {type: pre_norm, mixer: {type: attention, n_heads: 2}, ffn: {type: gated}}
each: {kind: {a: {}, b: {}}}
derived: {kind: %s}
"""
VALUES: list[Any] = [
    "s", "", "1", [], {}, 1.5, -3, 10**30, True, False, None, float("nan"), float("inf"), [[["a"], 10**9]], [["a"]],
    [[["a"] * 1000, 1000]], [[["a", 5], 2]], [[["a"], "2"]], [[[], 2]], [[["a"], -1]], [["a", 2]], [1], [[1]], [10**30],
    [None] * 4, [0.5] * 4, ["a"] * 4, [0, 1], {"a": 1}, ["a"] * 10_000, "s" * 10_000,
]  # fmt: skip
RULES = (
    "{first: $x, then: a, else: b}", "{every: $x, then: a, else: b}", "{every: 2, offset: $x, then: a, else: b}",
    "{at: $x, then: a, else: b}", "{from: $x, then: a, else: b}", "{from: 0, to: $x, then: a, else: b}",
    "{ones: $x, then: a, else: b}", "{runs: $x}", "{given: $x, first: 2, then: a, else: b}",
    "{first: $y, then: a, else: b, or: {at: $x, then: a, else: b}}", "{all: $x}",
)  # fmt: skip
VARIABLES = (
    "{$: x, times: y}", "{$: y, times: x}", "{$: y, times: x, power: -1}", "{$: x, times: x, power: 8}",
    "{$: x, fn: rsqrt}", "{$: x, fn: sqrt}", "{$: x, fn: inverse}", "{$: x, fn: double}", "{$: x, fn: half}",
    "{$: x, unless: {$: y, unless: x}}", "{$: x, map: {a: 0.5}}", "$x",
)  # fmt: skip
FIRST = "{first: 1, then: a, else: b}"


def declared(folder: Path, more: str = "", rule: str = FIRST, variable: str = "0.0") -> Path:
    (folder / "heron.yaml").write_text(TEXT % (variable, rule) + more)
    return folder / "heron.yaml"


def survive(declaration: Declaration, **config: Any) -> None:
    """A spec, or the kit's own error."""
    told = ""
    try:
        spec_of({"model_type": "heron", "num_hidden_layers": 4, **config}, declaration)
    except ConvertError as error:
        told = str(error)
    assert len(told) < 2000


@pytest.mark.parametrize("rule", RULES)
def test_values_of_rules(tmp_path: Path, rule: str) -> None:
    declaration = read(declared(tmp_path, rule=rule))
    for value in VALUES:
        survive(declaration, x=value)


@pytest.mark.parametrize("variable", VARIABLES)
def test_values_of_variables(tmp_path: Path, variable: str) -> None:
    declaration = read(declared(tmp_path, variable=variable))
    for value in [*VALUES, 10**9, 10**400, 1e308, -1e-300, 0]:
        for other in (0.5, 10**9, "s"):
            survive(declaration, x=value, y=other)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{runs: 5}", "5: must be a list of [[WORD, ...], TIMES], of at most 1024 layers in all, got 5"),
        ("{runs: [[[a], 1000000000]]}", "must be a list of [[WORD, ...], TIMES]"),
        ("{first: abc, then: a, else: b}", "abc: must be a whole number, got 'abc'"),
        ("{at: 5, then: a, else: b}", "5: must be a list of layers, got 5"),
        ("{ones: [0, 1], then: a, else: b}", "[0, 1]: must have 4 items, one for each layer, got 2"),
    ],
)
def test_what_a_rule_must_be_given(tmp_path: Path, rule: str, told: str) -> None:
    with pytest.raises(ConvertError) as caught:
        spec_of({"model_type": "heron", "num_hidden_layers": 4}, read(declared(tmp_path, rule=rule)))
    assert told in str(caught.value)


@pytest.mark.parametrize("value", VALUES)
def test_gpt_neo(value: Any) -> None:
    with pytest.raises(ConvertError):
        spec_of({"model_type": "gpt_neo", "num_layers": 4, "attention_types": value})


def refused(path: Path) -> str:
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        read(path)
    assert time.process_time() - began < 2
    return str(caught.value)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "x" * 300, "\\0", "..", "", "a.b"])
def test_includes_that_are_no_names(tmp_path: Path, name: str) -> None:
    assert "must be the name of a fragment" in refused(declared(tmp_path, f'include: ["{name}"]\n'))


def test_a_wrong_key_in_a_rule_inside_a_rule(tmp_path: Path) -> None:
    """Rules hold rules, which a search for the key that is meant must not follow without end."""
    rule = "{first: $x, then: a, else: b, or: {first: 1, tehn: a, else: b}}"
    assert "derived.kind.or.tehn: no key 'tehn' here" in refused(declared(tmp_path, rule=rule))


def test_includes_that_are_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kit: 1\ninert: [secret]\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "_inside.yaml").write_text("kit: 1\ninert: [mine]\n")
    (tmp_path / "in" / "_other.yaml").symlink_to("_inside.yaml")
    (tmp_path / "in" / "_link.yaml").symlink_to("../secret")
    assert read(declared(tmp_path / "in", "include: [other]\n")).inert == ["mine"]
    assert "'link' is a link that leads out of the folder" in refused(declared(tmp_path / "in", "include: [link]\n"))


@pytest.mark.parametrize("times", [1, 2])
def test_includes_without_end(tmp_path: Path, times: int) -> None:
    for i in range(100):
        names = ", ".join([f"f{i + 1}"] * times)
        (tmp_path / f"_f{i}.yaml").write_text(f"kit: 1\ninert: [a]\ninclude: [{names}]\n")
    (tmp_path / "_f100.yaml").write_text("kit: 1\n")
    assert "includes too many: at most 16 deep and 64 in all" in refused(declared(tmp_path, "include: [f0]\n"))


def test_includes_that_grow(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f"_f{i}.yaml").write_text(f"kit: 1\ninert: [{', '.join('a' * 300)}]\n")
    names = ", ".join(f"f{i}" for i in range(10))
    assert "is too large with what it includes: at most 2000 values" in refused(
        declared(tmp_path, f"include: [{names}]")
    )


def test_what_is_wrong_together(tmp_path: Path) -> None:
    """A rule that is right by itself is another one, and none, on that of a fragment."""
    (tmp_path / "_base.yaml").write_text("kit: 1\nderived: {kind: {at: $x, then: a, else: b}}\n")
    assert "derived.kind: must have one of first, every" in refused(declared(tmp_path, "include: [base]\n"))


def test_defaults_that_give_each_other(tmp_path: Path) -> None:
    path = declared(tmp_path, "defaults: {a: $b, b: $a}\n")
    path.write_text(path.read_text().replace("d_model: 8", "d_model: {$: a, unless: c}"))
    declaration = read(path)
    with pytest.raises(ConvertError, match="d_model"):
        spec_of({"model_type": "heron", "num_hidden_layers": 4}, declaration)
