"""A run that ends before its learning rate was at the peak says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry import core
from tests.train.runs import Recorder
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import rates, run


@pytest.mark.parametrize("name", core.names("schedule"))
@pytest.mark.parametrize(("steps", "warmup"), [(3, 1000), (5, 5), (5, 4), (1, 0), (1, 1), (2_000_000, 100), (7, 0)])
def test_a_warm_up_that_fills_the_run_is_noted(
    spec: Callable[..., RunSpec], name: str, steps: int, warmup: int
) -> None:
    more = {"decay": 2} if name == "wsd" else {}
    page = spec(train={"steps": steps}, schedule={"type": name, "warmup": warmup, **more})
    note = rates.note(page)
    assert (note is not None) == (warmup >= steps)
    if note is not None:
        reached = f"{min(1, steps / (warmup + 1)):.1%}"
        assert note == (
            f"in {steps} steps the learning rate reaches at most {reached} of its peak, "
            f"for `schedule.warmup` is {warmup:,}"
        )


def test_train_says_so(spec: Callable[..., RunSpec], recorder: Recorder, tmp_path: Path) -> None:
    page = spec(train={"steps": 1, "validation": 0.0}, schedule={"type": "constant", "warmup": 9})
    run(page, tmp_path / "out", report=recorder)
    assert any("at most 10.0% of its peak" in text for text in recorder.notes)
