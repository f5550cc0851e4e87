"""Configurations drawn at random compute what `transformers` computes, or are refused for a true reason.

`python -m tests.convert.sweep` is the long run. Here a few are drawn, others each day, and those that were wrong once
are kept in `data/drawn.json`: `seed` is what the sweep said, `config` what it drew.
"""

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from tests.convert.references import DATA
from tests.convert.sweep.draw import Case, draw
from tests.convert.sweep.judge import judged

KEPT: list[dict[str, Any]] = json.loads((DATA / "drawn.json").read_text())
FIRST = int(os.environ.get("SWEEP_SEED", datetime.date.today().toordinal() * 100))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + 12))
def test_what_is_drawn_today(seed: int, tmp_path: Path) -> None:
    """A failure is shown by `python -m tests.convert.sweep --seed SEED`, and goes into `data/drawn.json`."""
    outcome = judged(draw(seed), tmp_path)
    assert outcome.kind in ("equal", "refused", "no class"), f"seed {seed}: {outcome}"


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept["what"])
def test_what_was_wrong_once(kept: dict[str, Any], tmp_path: Path) -> None:
    outcome = judged(Case(0, kept["name"], kept["config"]), tmp_path)
    assert outcome.kind == kept["outcome"], outcome
    assert kept.get("says", "") in outcome.detail
