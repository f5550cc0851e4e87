"""The loop of a run: steps with evaluation, samples and checkpoints, until done, interrupted or diverged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.optim import Optimizer

from registry.contracts import Objective, Schedule
from transformer_kit import seeds
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import checkpoint, snapshot
from transformer_kit.train.corpus import Corpus
from transformer_kit.train.errors import Diverged
from transformer_kit.train.evaluate import aside, bits_per_byte, evaluate
from transformer_kit.train.metrics import Metrics
from transformer_kit.train.output import Layout, writing
from transformer_kit.train.precision import Placement
from transformer_kit.train.report import Reporter
from transformer_kit.train.signals import Interrupts
from transformer_kit.train.snapshot import Header
from transformer_kit.train.step import Batch, Step
from transformer_kit.train.throughput import Meter
from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward


@dataclass
class Run:
    """All components of a run, ready to start."""

    spec: RunSpec
    layout: Layout
    placement: Placement
    model: Model
    objective: Objective
    optimizer: Optimizer
    schedule: Schedule
    corpus: Corpus
    header: Header
    """Header of its checkpoints; step and seconds are those at the start."""
    meter: Meter
    metrics: Metrics
    report: Reporter
    optimizer_in_backward: OptimizerInBackward | None = None
    write_sample: Callable[[], str] | None = None
    """Generates sample text, with its own random numbers."""


class Loop:
    """Runs the steps."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.step = run.header.step
        """Steps done."""
        self.validation_loss: float | None = None
        """The last validation loss, in nats per token."""
        newest = checkpoint.found(run.layout.checkpoints)
        self._saved = next((step for step, _ in newest if step == self.step), None)
        max_grad_norm = run.spec.train.max_grad_norm
        self._advance = Step(
            run.model, run.objective, run.optimizer, run.placement, max_grad_norm, run.optimizer_in_backward
        )

    def go(self) -> str | None:
        """Run to the end and save; return the name of the signal that ended the run earlier, if any.

        Raises Diverged, leaving the checkpoints unchanged, and OutputError when a write fails.
        """
        run = self.run
        run.model.train()
        run.metrics.begin()
        with Interrupts() as interrupts:
            while self.step < run.spec.train.steps and interrupts.asked is None:
                self._one()
            self._save()
        return interrupts.asked

    def _one(self) -> None:
        """One step, and the actions due after it."""
        run, spec = self.run, self.run.spec
        scale = run.schedule.scale(self.step, spec.train.steps)
        outcome = self._advance(self._batches(), scale)
        self.step += 1
        run.metrics.add(self.step, outcome, self._advance.lr(scale))
        if self._due(spec.evaluate.every):
            self._evaluate()
        if run.metrics.due():
            self._flush()
        if spec.sample is not None and self._due(spec.sample.every):
            self._sample()
        if self._due(spec.checkpoint_every):
            self._save()

    def _batches(self) -> Iterator[Batch]:
        """The micro-batches of the next step, each loaded after the one before is done.

        Random numbers of a micro-batch, as for dropout, depend on seed, step and micro-batch alone.
        """
        train = self.run.spec.train
        for i in range(train.gradient_accumulation):
            seeds.reseed(train.seed, "step", self.step, i)
            yield Batch(*self.run.corpus.training.batch(self.step * train.gradient_accumulation + i))

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.run.spec.train.steps

    def _evaluate(self) -> None:
        run = self.run
        if run.corpus.validation is None:
            return
        with run.meter.pause():
            batches = run.spec.evaluate.batches
            batches = min(batches, run.corpus.validation_batches or batches)
            loss = evaluate(
                run.model, run.objective, run.corpus.validation, batches, run.placement, run.spec.train.seed
            )
        bits = bits_per_byte(loss, run.corpus.bytes_per_token)
        run.metrics.annotate({"val_loss": loss, "val_bits_per_byte": bits})
        self._flush()
        self.validation_loss = loss
        run.report.evaluation(self.step, loss, bits)

    def _sample(self) -> None:
        run = self.run
        if run.write_sample is None:
            return
        with run.meter.pause(), aside(run.model, run.spec.train.seed, "sample"):
            text = run.write_sample()
        path = run.layout.samples / f"step-{self.step:08d}.txt"
        with writing(path, self._last_good()):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        run.report.sample(self.step, text)

    def _flush(self) -> None:
        try:
            with writing(self.run.layout.metrics, self._last_good()):
                self.run.metrics.flush()
        except Diverged as error:
            raise Diverged(f"{error}{self._last_good()}") from None

    def _save(self) -> None:
        """Write a checkpoint unless this step has one; never with weights that are not finite."""
        self._flush()
        if self._saved == self.step:
            return
        run = self.run
        with run.meter.pause():
            self._refuse_infinite()
            path = checkpoint.path_of(run.layout.checkpoints, self.step)
            header = replace(run.header, step=self.step, seconds=run.header.seconds + run.meter.seconds)
            with writing(path, self._last_good()):
                with checkpoint.committed(path) as draft:
                    snapshot.save(draft, header, run.model, run.optimizer)
                checkpoint.prune(run.layout.checkpoints, run.spec.checkpoint.keep, self.step)
        self._saved = self.step
        run.report.checkpoint(self.step, path)

    def _refuse_infinite(self) -> None:
        """Raise Diverged unless all weights are finite: the step may break them although its loss was finite."""
        # min and max propagate NaN, and allocate nothing of a parameter's size.
        bounds = [torch.stack(torch.aminmax(p.detach())) for p in self.run.model.parameters()]
        if not torch.isfinite(torch.stack(bounds)).all():
            raise Diverged(f"weights are no longer finite after step {self.step}{self._last_good()}")

    def _last_good(self) -> str:
        good = self._newest()
        if good is None:
            return "; there is no checkpoint yet"
        return f"; the last good checkpoint is {good}, from which --resume goes on"

    def _newest(self) -> Path | None:
        """The newest checkpoint that this run wrote or started from."""
        if self._saved is None:
            return None
        return checkpoint.path_of(self.run.layout.checkpoints, self._saved)
