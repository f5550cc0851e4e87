"""Every spec that comes with the kit has a card."""

import json
from pathlib import Path

import pytest

from transformer_kit.cost.card import card
from transformer_kit.spec.read import read

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*/*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_spec_has_a_card(path: Path) -> None:
    found = card(read(path))
    assert 0 < found.parameters.non_embedding <= found.parameters.total
    read_by_one = found.parameters.active - found.parameters.embedding
    assert found.flops.forward_per_token > 2 * read_by_one
    assert min(found.memory) > 0
    assert found.state.bytes_per_token > 0
    assert json.dumps(found.data())
    assert found.text()
    assert found.html()
