"""Every pair of choices, of parts and of options, works in every way of reading, or is refused with a reason."""

from functools import cache

import pytest

from registry import core
from registry.options import Options
from transformer_kit.testing import expected_of
from transformer_kit.testing.pairs import Pair, Row, Space, covering, told

SHARES = 12
"""In how many tests the rows are run, so that two processes can divide them."""


@cache
def rows_and_refused() -> tuple[list[Row], dict[Pair, str]]:
    return covering()


@pytest.mark.parametrize("share", range(SHARES))
def test_pairs_work_in_every_way(share: int) -> None:
    space = Space()
    for row in rows_and_refused()[0][share::SHARES]:
        model = row.carrier.strong()
        for behavior in expected_of(model):
            try:
                behavior(model)
            except Exception as error:
                error.add_note(f"with {', '.join(told(row, space))}")
                raise


def test_every_pair_stands_in_a_row_or_is_refused() -> None:
    rows, refused = rows_and_refused()
    standing = {pair for row in rows for pair in row.pairs}
    assert standing.isdisjoint(refused)
    assert Space().pairs() <= standing | refused.keys()


def test_every_refusal_names_what_does_not_go_together() -> None:
    space = Space()
    for pair, reason in rows_and_refused()[1].items():
        parts = [o.part.name for key, i in pair if isinstance(o := space.values[key][i], Options)]
        words = [word for key, _ in pair for word in key] + parts
        assert any(word in reason for word in words), f"{sorted(pair)}: {reason or 'no reason'}"


def test_refusals_are_few_and_each_part_stands_somewhere() -> None:
    rows, refused = rows_and_refused()
    assert len(refused) < 0.1 * len(Space().pairs())
    space = Space()
    standing = {choice for row in rows for choice in row.chosen}
    for family in ("block", "kernel", "position", "norm", "init"):
        for i, options in enumerate(space.values[(family,)]):
            assert ((family,), i) in standing, f"no model with {family} '{options.part.name}'"
    assert len(space.values[("position",)]) == len(core.names("position"))
