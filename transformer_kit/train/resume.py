"""Going on where a run stopped: which checkpoint, whether it is this run's, and what is said about it."""

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
"""Sections of a run config that may change between start and resume: they do not say what is learned."""


def identity(spec: RunSpec) -> dict[str, Any]:
    """What of a run config decides what is learned."""
    return {key: value for key, value in spec.resolved().items() if key not in HARMLESS}


def machine(placement: Placement) -> dict[str, Any]:
    """What the last bits of a result depend on."""
    return {
        "torch": torch.__version__,
        "processor": processor() if placement.device.type == "cpu" else name(placement.device),
        "device": placement.device.type,
        "precision": str(placement.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def newest(checkpoints: Path, report: Reporter) -> Path | None:
    """The newest checkpoint that is whole; None when none was ever written. Says which are passed over, and why.

    Raises CheckpointError when there are some and none is whole.
    """
    candidates = checkpoint.found(checkpoints)
    for _, path in candidates:
        reason = checkpoint.fault(path)
        if reason is None:
            return path
        report.note(f"passed over {path}: {reason}")
    if candidates:
        raise CheckpointError(f"{checkpoints}: none of {len(candidates)} checkpoints is whole; the run cannot go on")
    return None


def known_peak(saved: Path, placement: Placement) -> float:
    """FLOP/s that the checkpoint's run was measured against, on this machine; 0 where that is not known."""
    header = read_header(saved)
    return 0.0 if differing(header.machine, machine(placement)) else header.peak


def check(path: Path, header: Header, ours: Header, schedule: Schedule, report: Reporter) -> None:
    """CheckpointError unless the checkpoint at `path` is of this run, whose number of steps may have changed.

    A note when it has, and when the machine is another.
    """
    before, after = _apart(header.spec), _apart(ours.spec)
    differences = [*differing(before.rest, after.rest), *differing(header.corpus, ours.corpus, "corpus")]
    if differences:
        listed = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        raise CheckpointError(f"{path} is of another run: {listed}; resume with the spec the run was started with")
    if before.steps != after.steps:
        _check_steps(path, header.step, before.steps, after.steps, schedule)
        report.note(f"the run ends after {after.steps} steps, where it was to end after {before.steps}")
    for difference in differing(header.machine, ours.machine):
        report.note(f"not the machine that the run was saved on, so the last bits may differ: {difference}")


class _Apart(NamedTuple):
    """What decides what is learned, the number of steps by itself."""

    steps: int
    rest: dict[str, Any]


def _apart(spec: dict[str, Any]) -> _Apart:
    train = dict(spec["train"])
    return _Apart(train.pop("steps"), {**spec, "train": train})


def _check_steps(path: Path, done: int, before: int, after: int, schedule: Schedule) -> None:
    """CheckpointError unless a run of `after` steps would have begun with the `done` steps of one of `before`."""
    if after < done:
        raise CheckpointError(f"{path}: train.steps must be at least {done}, the steps that are done, got {after}")
    rates = ((step, schedule.scale(step, before), schedule.scale(step, after)) for step in range(done))
    first = next(((step, old, new) for step, old, new in rates if old != new), None)
    if first is None:
        return
    step, old, new = first
    earlier = f"a checkpoint of step {step} or before can go on so; or " if step else ""
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
    """JSON knows no tuples."""
    return [_json(v) for v in value] if isinstance(value, (list, tuple)) else value
