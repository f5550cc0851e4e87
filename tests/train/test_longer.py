"""A run that is resumed with another number of steps: as if it had been begun with that, or refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.train.runs import Recorder, records
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import CheckpointError, checkpoint, run

OFTEN = {"evaluate": {"every": 100, "batches": 1}, "checkpoint": {"every": 2, "keep": 9}}


def losses(folder: Path) -> list[tuple[float, float, float]]:
    return [(r["step"], r["loss"], r["lr"]) for r in records(folder)]


@pytest.mark.parametrize(
    ("schedule", "begun", "done", "wanted"),
    [
        ({"type": "constant", "warmup": 2}, 4, 4, 7),
        ({"type": "wsd", "warmup": 1, "decay": 3}, 7, 4, 9),
        ({"type": "wsd", "warmup": 1, "decay": 3}, 9, 4, 7),
        ({"type": "cosine", "warmup": 4}, 6, 4, 9),  # nothing but the warm-up is done
    ],
)
def test_it_ends_as_if_begun_with_that_many(
    spec: Callable[..., RunSpec], tmp_path: Path, schedule: dict[str, Any], begun: int, done: int, wanted: int
) -> None:
    report, out = Recorder(), tmp_path / "out"
    run(spec(schedule=schedule, train={"steps": begun}, **OFTEN), out)
    for step, path in checkpoint.found(out / "checkpoints"):
        if step > done:
            shutil.rmtree(path)
    longer = spec(schedule=schedule, train={"steps": wanted}, **OFTEN)
    run(longer, out, resume=True, report=report)
    assert report.plans[0].start == done
    assert f"the run ends after {wanted} steps, where it was to end after {begun}" in report.notes
    assert any("keeps the model of an earlier end" in note for note in report.notes)
    whole = tmp_path / "whole"
    run(longer, whole)
    assert losses(out) == losses(whole)
    a, b = (load_file(folder / "model/model.safetensors") for folder in (out, whole))
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    assert yaml.safe_load((out / "run.yaml").read_text()) == yaml.safe_load((whole / "run.yaml").read_text())
    again = Recorder()
    run(longer, out, resume=True, report=again)
    assert not any("the run ends" in note for note in again.notes)


@pytest.mark.parametrize(
    ("schedule", "begun", "wanted", "told"),
    [
        ({"type": "cosine", "warmup": 2}, 6, 9, r"step 4 depend on it: 0\.8682 of the peak, not 0\.9554; a checkpoint "
         r"of step 3 or before can resume this way"),
        ({"type": "linear"}, 4, 9, r"schedule 'linear' made the learning rate of step 2 depend on it"),
        ({"type": "wsd", "decay": 3}, 6, 9, r"step 5 depend on it: .* a checkpoint of step 4 or before"),
        ({"type": "constant"}, 6, 4, r"train\.steps must be at least 6, the steps that are done, got 4"),
    ],
)  # fmt: skip
def test_it_is_refused_where_steps_that_are_done_would_have_been_others(
    spec: Callable[..., RunSpec], tmp_path: Path, schedule: dict[str, Any], begun: int, wanted: int, told: str
) -> None:
    run(spec(schedule=schedule, train={"steps": begun}, **OFTEN), tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match=told):
        run(spec(schedule=schedule, train={"steps": wanted}, **OFTEN), tmp_path / "out", resume=True)
    assert before == {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
