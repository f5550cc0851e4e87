"""Parts of an installed plugin keep the contracts as the kit's own do, alone and among the others."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.strategies import DataObject, data

from registry import core
from registry.options import Options
from transformer_kit import build
from transformer_kit.testing import check_part, expected_of, options_for, specs, strong_init

PARTS = [("activation", "acme.swish"), ("ffn", "acme.bottleneck"), ("position", "acme.ramp")]
DRAWN = settings(
    max_examples=500,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def _listed(shop: Path) -> Iterator[None]:
    with core.activate(frozenset({"acme"})):
        yield


def test_every_part_passes_every_check(record_property: Callable[[str, object], None]) -> None:
    assert [(f, n) for f in core.families() for n in core.names(f) if n.startswith("acme.")] == PARTS
    for family, name in PARTS:
        for _ in check_part(family, name).checks:
            record_property("conformance", f"{family}/{name}")


@pytest.mark.parametrize(("family", "user", "slot", "name"), [
    ("ffn", "mlp", "activation", "acme.swish"),
    ("block", "pre_norm", "ffn", "acme.bottleneck"),
    ("block", "pre_norm", "position", "acme.ramp"),
])  # fmt: skip
def test_options_are_drawn_with_it(family: str, user: str, slot: str, name: str) -> None:
    def uses(options: Options) -> bool:
        chosen = getattr(options, slot)
        return chosen is not None and chosen.part.name == name

    find(options_for(core.get(family, user)), uses, settings=DRAWN)


@settings(DRAWN, max_examples=5)
@given(data())
def test_specs_with_its_parts_work_in_every_way(drawn: DataObject) -> None:
    spec = drawn.draw(specs(max_layers=1, position={"type": "acme.ramp"}))
    assert spec.plugins == ("acme",)
    model = build(spec).double()
    strong_init(model)
    for behavior in expected_of(model):
        behavior(model.eval())
