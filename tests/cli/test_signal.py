"""`kit build --signal`, and what `kit check` says of unequal scales."""

import pytest

from tests.cli.runner import Kit


@pytest.mark.parametrize("name", ["tutorial", "transformer-2017-decoder", "gpt2-124m", "gpt-117m"])
def test_shipped_models_have_scales_that_can_be_learned_from(kit: Kit, name: str) -> None:
    assert kit("check", name).err == ""


def test_check_notes_unequal_scales(kit: Kit) -> None:
    done = kit("check", "tutorial", "--set", "model.position.scale=0.02")
    assert done.code == 0
    assert "note: tokens differ by" in done.err


def test_build_shows_signals_where_they_are_asked_for(kit: Kit) -> None:
    small = ("build", "quickstart", "--set", "model.layers.count=1", "--set", "model.position=learned")
    shown = kit(*small, "--signal").out
    assert "layers.0   activation" in shown
    assert "differ by  tokens 0.02" in shown
    told = kit(*small, "--signal", "--json").json()["signal"]
    assert [stage["name"] for stage in told["stages"]] == ["embedding", "position", "layers.0", "norm", "head"]
    assert set(told["scales"]) == {"tokens", "positions"}
    assert "signal" not in kit(*small, "--json").json()
