"""Python users write the same things: mappings, Options objects, spec classes."""

from collections.abc import Iterator
from typing import Any

import pytest

from registry import core
from registry.contracts import FFN
from tests.spec.pages import PAGE
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Layers, ModelSpec, Spec
from transformer_kit.spec.yaml import parse

Attention = core.get("mixer", "attention").Options
Gated = core.get("ffn", "gated").Options
PreNorm = core.get("block", "pre_norm").Options
RoPE = core.get("position", "rope").Options
SIZES = {"vocab_size": 64, "d_model": 32, "max_seq_len": 16}


def block() -> Any:
    """The block of the good page, as objects."""
    return PreNorm(mixer=Attention(n_heads=4), ffn=Gated(d_ff=48))


@pytest.fixture
def good() -> Spec:
    """The good page."""
    return Spec.of(parse(PAGE, "page.yaml")[0])


def test_options_objects_stand_for_what_they_say(good: Spec) -> None:
    spec = Spec.of({"model": {**SIZES, "position": RoPE(), "layers": {"count": 4, "block": block()}}})
    assert spec == good


def test_options_objects_are_merged_as_mappings_are() -> None:
    stack = {
        "count": 4,
        "block": block(),
        "kinds": {"local": {"mixer": {"window": 3}}, "wide": {"ffn": Gated(d_ff=64)}},
        "pattern": ["local", "wide"],
        "at": {-1: {"norm": "rms_norm"}},
    }
    for layers in (Spec.of({"model": {**SIZES, "layers": stack}}).model.layers, Layers.model_validate(stack)):
        assert [(b.mixer.n_heads, b.mixer.window, b.ffn.d_ff) for b in layers.blocks] == [(4, 3, 48), (4, None, 64)] * 2
        assert [b.norm is None for b in layers.blocks] == [True, True, True, False]


def test_spec_classes_serve_directly(good: Spec) -> None:
    model = ModelSpec(**SIZES, position=RoPE(), layers=Layers(blocks=(block(),) * 4))
    assert Spec(model=model) == good
    assert Spec.of({"model": model}) == good
    assert Spec.of({"model": {**SIZES, "position": "rope", "layers": Layers(blocks=[block()] * 4)}}) == good
    assert Spec(model=model).hash == good.hash
    assert Spec(model=model).notes == ()


def test_a_stack_needs_a_layer() -> None:
    with pytest.raises(SpecError, match=r"^spec: model\.layers\.blocks: must hold at least 1, got 0$"):
        Spec.of({"model": {**SIZES, "layers": {"blocks": []}}})


def test_mistakes_have_paths_and_come_once_for_all_layers() -> None:
    layers = {
        "count": 12,
        "block": {"type": "pre_norm", "mixer": {"type": "attention"}, "ffn": {"type": "gated", "d_f": 1}},
    }
    with pytest.raises(SpecError) as caught:
        Spec.of({"model": {**SIZES, "d_model": "32", "layers": layers}, "extra": 1})
    assert sorted(str(caught.value).splitlines()) == [
        "spec: extra: no key 'extra' here; choose from kit, plugins, model",
        "spec: model.d_model: must be a whole number, got '32'",
        "spec: model.layers.block.ffn.d_f: no option 'd_f' in 'gated'; did you mean 'd_ff'?",
        "spec: model.layers.block.mixer: needs 'n_heads': query heads H",
    ]


def test_options_of_another_family_are_refused() -> None:
    layers = {"count": 1, "block": PreNorm(mixer=Attention(n_heads=4), ffn=Gated())}
    with pytest.raises(SpecError, match=r"^spec: model\.position: no position 'gated'; 'gated' is a part of ffn$"):
        Spec.of({"model": {**SIZES, "position": Gated(), "layers": layers}})


def test_options_of_a_part_of_this_process() -> None:
    with core.scope():

        @core.register("my.ffn")
        class Mine(FFN):
            class Options(FFN.Options):
                table: dict[str, float] = {}

        def spec(*tables: dict[str, float]) -> Spec:
            blocks = [{"type": "pre_norm", "mixer": Attention(n_heads=4), "ffn": Mine.Options(table=t)} for t in tables]
            return Spec.of({"model": {**SIZES, "layers": {"blocks": blocks}}})

        for made in (spec({"a": 1.0}), spec({"a": 1.0}, {"b": 2.0}), spec({"a": 1.0}, {"a": 1.0, "b": 2.0}, {})):
            assert Spec.of(made.resolved()) == made


@pytest.mark.parametrize("value", [None, 3, [], "tutorial", ("model",)])
def test_what_is_no_mapping_is_no_spec(value: Any) -> None:
    with pytest.raises(SpecError, match=r"^spec: must be a mapping of keys to values, got "):
        Spec.of(value)


def test_a_mapping_within_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["model"] = endless
    with pytest.raises(SpecError, match=r"^spec: model\.model\.model: nested too deeply"):
        Spec.of(endless)


def test_numbers_without_end_are_refused() -> None:
    with pytest.raises(SpecError, match="must be at most 1048576, got a number of over 50 digits"):
        Spec.of({"model": {**SIZES, "d_model": 10**5000, "layers": {"count": 1, "block": block()}}})


def test_reading_changes_nothing_of_what_was_given() -> None:
    given = {"model": {**SIZES, "layers": {"count": 2, "block": block(), "kinds": {"a": {"ffn": "mlp"}}}}}
    before = repr(given)
    Spec.of(given)
    assert repr(given) == before


@pytest.fixture
def mixer() -> Iterator[str]:
    """A part of this process, which is gone afterwards."""
    with core.scope():

        @core.register("my.ffn")
        class Mine(FFN):
            """Does nothing."""

        yield "my.ffn"


def test_a_part_of_this_process_needs_no_plugin(mixer: str) -> None:
    spec = read("tutorial", [f"model.layers.block.ffn={mixer}"])
    assert spec.model.layers.blocks[0].ffn.part.name == mixer
    assert len(spec.notes) == 1


def test_it_is_gone_afterwards() -> None:
    with pytest.raises(SpecError, match=r"no ffn 'my\.ffn'"):
        read("tutorial", ["model.layers.block.ffn=my.ffn"])
