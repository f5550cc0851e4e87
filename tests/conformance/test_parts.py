"""Every registered part keeps every promise of its contract. There is no list: families and names are asked for."""

from collections.abc import Callable, Iterator

import pytest

from registry import core
from transformer_kit.testing import Check, checks_for


def cases() -> Iterator[object]:
    """One case for each part and each check that applies to its family."""
    for family in core.families():
        for name in core.names(family):
            for check in checks_for(family):
                yield pytest.param(family, name, check, id=f"{family}-{name}-{check.name}")


@pytest.mark.parametrize(("family", "name", "check"), list(cases()))
def test_part_keeps_its_contract(
    family: str, name: str, check: Check, record_property: Callable[[str, object], None]
) -> None:
    check.run(core.get(family, name))
    record_property("conformance", f"{family}/{name}")


def test_every_family_has_checks_of_its_own() -> None:
    everyones = {c.name for c in min((checks_for(f) for f in core.families()), key=len)}
    for family in core.families():
        own = [c.name for c in checks_for(family) if c.name not in everyones or family in c.families]
        assert own, f"nothing is promised of {family} but to have options"
