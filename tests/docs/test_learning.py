"""The spec of how each part learns: what is measured, and what asks for an explanation."""

from typing import Any

import pytest

from docs import learning
from docs.learning import FAMILIES, REMARKS, base, is_far, learning_page, measurements, rows


def test_what_learns_badly_is_explained() -> None:
    results = measurements()
    own = sum(base(results)) / max(1, len(base(results)))
    measured = [row for family in FAMILIES for row in rows(family, results) if row.trouble != "not measured yet"]
    assert {row.part for row in measured if is_far(row, own)} == set(REMARKS)


def test_the_page_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: dict[str, Any] = {"objective/causal_lm": {"0": "a", "1": "b", "2": "c"}, "norm/rms_norm": {"0": "a"}}
    parts |= {"norm/none": {"0": "d", "1": "d", "2": "d"}, "kernel/flex": {"0": "e"}}
    runs: dict[str, Any] = {"a": 2.0, "b": 2.2, "c": 2.1, "d": 2.5, "e": "RuntimeError: no"}
    told = {"date": "today", "machine": "a machine", "torch": "2", "settings": ["a=1"]}
    monkeypatch.setattr(learning, "measurements", lambda: {"parts": parts, "runs": runs, **told})
    monkeypatch.setattr(learning, "REMARKS", {"norm/none": "Because."})
    page = learning_page("")
    assert "The spec as it is: 2.100 nats, spread 0.200." in page
    assert "[`none`](parts/norm.md#none) | 2.500 | 0.000 | +0.400 | Because. |" in page
    assert "[`rms_norm`](parts/norm.md#rms_norm) | 2.000 | 0.000 | -0.100 | 1 of 3 seeds. |" in page
    assert "[`flex`](parts/kernel.md#flex) | | | | RuntimeError: no |" in page
    assert "[`layer_norm`](parts/norm.md#layer_norm) | | | | not measured yet |" in page
    monkeypatch.setattr(learning, "measurements", lambda: {"parts": {}, "runs": {}})
    assert "Nothing is measured yet." in learning_page("")
