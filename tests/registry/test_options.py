"""Options: nothing is converted, nothing is swallowed, and every mistake is placed at its key."""

from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from registry import core
from registry.contracts import FFN, ActivationSlot, FFNSlot, NormSlot
from registry.options import (
    AsTuple,
    Count,
    Fraction,
    Group,
    Natural,
    NonNegative,
    Options,
    Positive,
    Rate,
    Slot,
    Width,
    named,
    plain,
    slot_family,
)


class Inner(Group):
    """A nested group."""

    share: Fraction = 0.5
    """A share."""


class Every(Options):
    """One field of each kind."""

    count: Count = 1
    """A number of things."""
    natural: Natural = 0
    """Possibly none."""
    width: Width = 1
    """Features."""
    positive: Positive = 1.0
    """Above zero."""
    least: NonNegative = 0.0
    """Zero or more."""
    rate: Rate = 0.0
    """A probability."""
    flag: bool = False
    """A truth."""
    word: str = "a"
    """A word."""
    numbers: Annotated[tuple[int, ...], AsTuple] = ()
    """A list."""
    inner: Inner = Inner()
    """A group."""
    bend: ActivationSlot = named("silu")
    """A slot."""
    norm: NormSlot | None = None
    """A slot that may be empty."""
    bends: Annotated[tuple[ActivationSlot, ...], AsTuple] = ()
    """A list of slots."""


def places(value: dict[str, Any]) -> list[tuple[int | str, ...]]:
    with pytest.raises(ValidationError) as caught:
        Every.model_validate(value)
    return [error["loc"] for error in caught.value.errors()]


def message(value: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Every.model_validate(value)
    (error,) = caught.value.errors()
    return error["msg"]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("count", [0, -1, True, False, 1.0, "3", None, 10**9 + 1, [1], {}]),
        ("natural", [-1, True, 0.0, "0", None]),
        ("width", [0, True, 2.0, "2", 2**20 + 1]),
        ("positive", [0, 0.0, -1.0, True, "1", "1e-5", NAN, INF, 1e13, None]),
        ("least", [-1e-9, True, "0", NAN, INF]),
        ("rate", [1.0, 1, -0.1, True, "0.1", NAN]),
        ("flag", [0, 1, "true", "no", None]),
        ("word", [1, True, None, b"a", ["a"]]),
        ("numbers", [1, "12", [1, "2"], [True], {"a": 1}, None, {1}]),
        ("inner", [0.5, "x", None, [], {"share": 0.0}, {"share": 2}, {"part": 1}]),
    ],
)
def test_values_of_another_type_or_out_of_bounds_are_refused_not_converted(field: str, wrong: list[Any]) -> None:
    for value in wrong:
        assert {place[0] for place in places({field: value})} == {field}, value


def test_values_in_bounds_are_taken_as_they_are() -> None:
    value = {"count": 10**9, "natural": 0, "width": 2**20, "positive": 1e-12, "least": 0.0, "rate": 0.999}
    options = Every.model_validate({**value, "flag": True, "numbers": [1, 2], "inner": {"share": 1.0}})
    assert {key: getattr(options, key) for key in value} == value
    assert (options.flag, options.numbers, options.inner.share) == (True, (1, 2), 1.0)
    assert isinstance(Every(positive=2).positive, float)


def test_unknown_keys_are_refused_at_every_depth() -> None:
    value = {
        "cuont": 1,
        "inner": {"shar": 1},
        "bend": {"type": "gelu", "slope": 1},
        "bends": ["relu", {"type": "gelu", "a": 1}],
    }
    assert set(places(value)) == {("cuont",), ("inner", "shar"), ("bend", "slope"), ("bends", 1, "a")}


def test_mistakes_inside_slots_inside_slots_are_placed_there() -> None:
    class Page(Options):
        """A spec."""

        ffn: FFNSlot
        """A slot."""

    value = {"ffn": {"type": "gated", "d_ff": "8", "activation": {"type": "gelu", "wrong": 1}}}
    with pytest.raises(ValidationError) as caught:
        Page.model_validate(value)
    assert {e["loc"] for e in caught.value.errors()} == {("ffn", "d_ff"), ("ffn", "activation", "wrong")}


def test_options_are_frozen_and_can_be_keys() -> None:
    options = Every()
    with pytest.raises(ValidationError):
        options.count = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        options.inner.share = 1.0  # type: ignore[misc]
    assert {options: 1}[Every()] == 1
    assert Every(count=2) != options


# ------------------------------------------------------------------ slots


def test_a_slot_takes_a_name_a_mapping_or_options() -> None:
    gelu = core.get("activation", "gelu").Options()
    for spelling in ("gelu", {"type": "gelu"}, gelu):
        assert Every(bend=spelling).bend == gelu
        assert Every.model_validate({"bends": [spelling]}).bends == (gelu,)
    assert type(Every().bend) is core.get("activation", "silu").Options
    assert Every(norm="rms_norm").norm.part.name == "rms_norm"  # type: ignore[union-attr]
    assert Every(norm=None).norm is None


def test_a_slot_leaves_its_mapping_as_it_was() -> None:
    value = {"type": "gelu"}
    Every(bend=value)
    assert value == {"type": "gelu"}


@pytest.mark.parametrize("value", [None, 3, True, ["gelu"], 1.5])
def test_a_slot_says_what_it_takes(value: Any) -> None:
    assert message({"bend": value}) == f"must be the name of an activation or a mapping with `type:`, got {value!r}"
    assert places({"bend": value}) == [("bend",)]


@pytest.mark.parametrize("value", [{}, {"slope": 1}, {"type": None}, {"type": 3}, {"type": ["gelu"]}])
def test_a_mapping_without_a_type_is_told_the_choices(value: Any) -> None:
    text = message({"bend": value})
    assert "needs `type:`" in text
    assert "gelu, gelu_tanh" in text


def test_a_slot_names_what_it_does_not_know() -> None:
    assert message({"bend": "gellu"}) == "no activation 'gellu'; did you mean 'gelu'?"
    assert message({"bend": "rms_norm"}) == "no activation 'rms_norm'; 'rms_norm' is a part of norm"
    assert message({"norm": "gelu"}) == "no norm 'gelu'; 'gelu' is a part of activation"
    assert "must be a part of activation, got norm 'rms_norm'" in message(
        {"bend": core.get("norm", "rms_norm").Options()}
    )
    assert "must be a part of activation, got no part" in message({"bend": Every()})


def test_parts_registered_after_the_class_fit_its_slots() -> None:
    with core.scope():

        @core.register("my.late")
        class Late(core.get("activation", "relu")):  # type: ignore[misc]
            """Registered when the slot was long there."""

        assert Every(bend="my.late").bend.part is Late
    assert "no activation 'my.late'" in message({"bend": "my.late"})


def test_slots_know_their_family() -> None:
    families = {name: slot_family(field) for name, field in Every.model_fields.items()}
    slots = {name: family for name, family in families.items() if family is not None}
    assert slots == {"bend": "activation", "norm": "norm", "bends": "activation"}


# ------------------------------------------------------------------ plain


def test_plain_writes_every_choice_out_and_reads_back_as_equal() -> None:
    for options in (Every(), Every(norm="rms_norm", bends=["relu", "gelu"], numbers=[3], inner={"share": 0.25})):
        page = plain(options)
        assert Every.model_validate(page) == options
        assert plain(Every.model_validate(page)) == page
        assert set(page) == set(Every.model_fields)
    assert plain(Every())["bend"] == {"type": "silu"}
    assert plain(Every(numbers=[1, 2]))["numbers"] == [1, 2]
    assert plain({"a": (1, {2})}) == {"a": [1, [2]]}


def test_plain_of_a_part_reads_back_through_a_slot() -> None:
    options = core.get("ffn", "gated").Options(d_ff=16, activation="gelu")
    page = plain(options)
    assert page["type"] == "gated"
    assert page["activation"] == {"type": "gelu"}
    assert Slot("ffn").read(page) == options


def test_dumping_a_group_writes_its_slots_as_yaml_would() -> None:
    dumped = Every(norm="rms_norm").model_dump()
    assert dumped["bend"] == {"type": "silu"}
    assert dumped["norm"]["type"] == "rms_norm"


def test_options_of_a_part_know_their_part() -> None:
    gated = core.get("ffn", "gated")
    assert gated.Options.part is gated

    class Plain(FFN):
        """Declares no options: gets its own class of none."""

    assert Plain.Options is not FFN.Options
    assert Plain.Options.part is Plain
    assert FFN.Options.part is FFN
