"""Metrics of a run: kept on the device, fetched a few times a second, checked, and logged."""

import math
import time

import torch

from registry.contracts import Tracker
from transformer_kit.train.errors import Diverged
from transformer_kit.train.report import Progress, Reporter
from transformer_kit.train.step import Outcome
from transformer_kit.train.throughput import REMEDY, Meter

INTERVAL = 0.5
"""Seconds between fetches. A fetch waits for the device, so fetches must be rare."""


class Metrics:
    """Collects the outcome of each step, and passes one record for each step to trackers and reporter."""

    def __init__(self, trackers: list[Tracker], report: Reporter, meter: Meter, steps: int) -> None:
        """`steps` is the length of the whole run."""
        self.last_loss: float | None = None
        """Training loss of the last step fetched."""
        self._trackers = trackers
        self._report = report
        self._meter = meter
        self._taken = 0
        self._noted = False
        self._steps = steps
        self._pending: list[tuple[int, Outcome, dict[str, float]]] = []
        self._began = self._fetched = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()
        self._meter.begin()

    def add(self, step: int, outcome: Outcome, lr: float) -> None:
        """Add the outcome of `step`, without waiting for the device."""
        self._taken += 1
        self._pending.append((step, outcome, {"lr": lr}))

    def annotate(self, values: dict[str, float]) -> None:
        """Add values to the record of the last step."""
        self._pending[-1][2].update(values)

    def due(self) -> bool:
        """Whether the next fetch is due."""
        return time.perf_counter() - self._fetched >= INTERVAL

    def flush(self) -> None:
        """Fetch and log all pending outcomes. Raises Diverged at the first step that is not finite."""
        if not self._pending:
            return
        fetched = _fetched([outcome for _, outcome, _ in self._pending])
        speed = self._meter.lap(len(self._pending))
        self._note_mfu(self._meter.mfu(speed))
        for (step, _, values), (loss, norm, measured) in zip(self._pending, fetched, strict=True):
            _check(step, {"loss": loss, "gradient norm": norm, "validation loss": values.get("val_loss", 0.0)})
            record = {"loss": loss, "grad_norm": norm, **values, "tokens": step * self._meter.tokens_per_step}
            self._write(step, {**record, "tokens_per_second": speed, "mfu": self._meter.mfu(speed), **measured})
            self.last_loss = loss
        self._show(*self._pending[-1], speed)
        self._pending.clear()
        self._fetched = time.perf_counter()

    def _note_mfu(self, mfu: float) -> None:
        """Warn once when MFU exceeds 1."""
        if mfu > 1 and not self._noted:
            self._noted = True
            self._report.note(
                f"MFU is {mfu:.0%}: the machine is faster than its peak of {self._meter.peak:.3g} FLOP/s; {REMEDY}"
            )

    def rewind(self, step: int) -> None:
        """Remove records after `step`."""
        for tracker in self._trackers:
            tracker.rewind(step)

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()

    def _write(self, step: int, record: dict[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(step, record)

    def _show(self, step: int, outcome: Outcome, values: dict[str, float], speed: float) -> None:
        pace = (time.perf_counter() - self._began) / self._taken
        loss = math.nan if self.last_loss is None else self.last_loss
        eta = pace * (self._steps - step)
        self._report.progress(Progress(step, self._steps, loss, values["lr"], speed, self._meter.mfu(speed), eta))


def _fetched(outcomes: list[Outcome]) -> list[tuple[float, float, dict[str, float]]]:
    """Loss, gradient norm and the parts' metrics of each step: the only code that waits for the device."""
    scalars = [t for o in outcomes for t in (o.loss, o.grad_norm, *o.measured.values())]
    numbers = iter(torch.stack([t.float() for t in scalars]).tolist())
    return [(next(numbers), next(numbers), {name: next(numbers) for name in o.measured}) for o in outcomes]


def _check(step: int, numbers: dict[str, float]) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise Diverged(f"the {name} became {number} at step {step}")
