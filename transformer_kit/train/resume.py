"""Resuming a run: finds its newest checkpoint, and checks that spec, data and machine match."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from registry.contracts import Schedule
from transformer_kit.machine import name, processor
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import checkpoint
from transformer_kit.train.errors import CheckpointError
from transformer_kit.train.precision import Placement
from transformer_kit.train.report import Reporter
from transformer_kit.train.snapshot import Header, read_header

HARMLESS = ("trackers", "evaluate", "checkpoint", "sample", "hardware")
"""Sections of a run config that may change on resume, since they do not change the result."""


def identity(spec: RunSpec) -> dict[str, Any]:
    """The part of a run config that determines the weights."""
    return {key: value for key, value in spec.resolved().items() if key not in HARMLESS}


def machine(placement: Placement) -> dict[str, Any]:
    """Facts about the machine that may change the last bits of a result."""
    return {
        "torch": torch.__version__,
        "processor": processor() if placement.device.type == "cpu" else name(placement.device),
        "device": placement.device.type,
        "precision": str(placement.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def newest(checkpoints: Path, report: Reporter) -> Path | None:
    """The newest complete checkpoint; None when none was written. Reports damaged ones, with the reason.

    Raises CheckpointError when checkpoints exist and all are damaged.
    """
    candidates = checkpoint.found(checkpoints)
    for _, path in candidates:
        reason = checkpoint.fault(path)
        if reason is None:
            return path
        report.note(f"skipped {path}: {reason}")
    if candidates:
        raise CheckpointError(
            f"{checkpoints}: none of {len(candidates)} checkpoints is complete; the run cannot resume"
        )
    return None


def known_peak(saved: Path, placement: Placement) -> float:
    """Peak FLOP/s that the checkpoint's run used for MFU on this machine; 0 when unknown."""
    header = read_header(saved)
    return 0.0 if differing(header.machine, machine(placement)) else header.peak


def check(path: Path, header: Header, ours: Header, schedule: Schedule, report: Reporter) -> None:
    """CheckpointError unless the checkpoint at `path` belongs to this run; the number of steps may differ.

    Reports a different number of steps, and a different machine.
    """
    before, after = _apart(header.spec), _apart(ours.spec)
    differences = [*differing(before.rest, after.rest), *differing(header.corpus, ours.corpus, "corpus")]
    if differences:
        listed = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        raise CheckpointError(f"{path} belongs to another run: {listed}; resume with the spec the run was started with")
    if before.steps != after.steps:
        _check_steps(path, header.step, before.steps, after.steps, schedule)
        report.note(f"the run ends after {after.steps} steps, where it was to end after {before.steps}")
    for difference in differing(header.machine, ours.machine):
        report.note(f"this machine differs from the one that saved the run, so the last bits may differ: {difference}")


class _Apart(NamedTuple):
    """The configuration that determines the weights, and separately the number of steps."""

    steps: int
    rest: dict[str, Any]


def _apart(spec: dict[str, Any]) -> _Apart:
    train = dict(spec["train"])
    return _Apart(train.pop("steps"), {**spec, "train": train})


def _check_steps(path: Path, done: int, before: int, after: int, schedule: Schedule) -> None:
    """CheckpointError unless the first `done` steps of a run of `after` steps equal those of a run of `before`."""
    if after < done:
        raise CheckpointError(f"{path}: train.steps must be at least {done}, the steps that are done, got {after}")
    rates = ((step, schedule.scale(step, before), schedule.scale(step, after)) for step in range(done))
    first = next(((step, old, new) for step, old, new in rates if old != new), None)
    if first is None:
        return
    step, old, new = first
    earlier = f"a checkpoint of step {step} or before can resume this way; or " if step else ""
    raise CheckpointError(
        f"{path}: train.steps was {before} and is {after}, but schedule '{schedule.name}' made the learning rate of "
        f"step {step + 1} depend on it: {old:.4g} of the peak, not {new:.4g}; {earlier}resume with train.steps="
        f"{before}, or start a new run from the trained model by --from"
    )


def differing(before: Any, after: Any, at: str = "") -> list[str]:
    """Places where two trees of plain values differ, as `where: before, now after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        return [d for k in keys for d in differing(before.get(k), after.get(k), f"{at}.{k}" if at else str(k))]
    if _json(before) == _json(after):
        return []
    return [f"{at}: {before!r:.60}, now {after!r:.60}"]


def _json(value: Any) -> Any:
    """JSON has no tuples."""
    return [_json(v) for v in value] if isinstance(value, (list, tuple)) else value
