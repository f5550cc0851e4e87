"""Progress of a run: a bar on a terminal, plain lines in a log, one JSON object for each event for a program."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich.progress as bars
from rich.console import Console
from rich.text import Text

from transformer_kit.cli.output import console, emit, harmless, is_terminal
from transformer_kit.train.report import Plan, Progress
from transformer_kit.train.transfer import Transfer

INTERVAL = 5.0
"""Seconds between two lines of a log."""


def reporter(*, as_json: bool) -> "Lines | Events":
    """The reporter for the kind of output."""
    if as_json:
        return Events()
    return Bar(console()) if is_terminal() else Lines(console())


class Lines:
    """A line every few seconds."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._shown = 0.0

    def tokenizing(self, done: int) -> None:
        if time.monotonic() - self._shown >= INTERVAL:
            self._shown = time.monotonic()
            self._print(f"tokenizing  {done / 1e6:,.0f} MB", "dim")

    def begin(self, plan: Plan) -> None:
        for line in _headline(plan):
            self._print(line)

    def note(self, text: str) -> None:
        self._print(f"note: {text}", "yellow")

    def transfer(self, transfer: Transfer) -> None:
        self.note(transfer.text())

    def progress(self, progress: Progress) -> None:
        if time.monotonic() - self._shown < INTERVAL and progress.step < progress.steps:
            return
        self._shown = time.monotonic()
        self._print(f"step {progress.step}/{progress.steps}  {_figures(progress)}  {_left(progress.eta)} left")

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None:
        self._print(f"step {step}  validation loss {loss:.4f}  {bits_per_byte:.4f} bits per byte", "bold")

    def sample(self, step: int, text: str) -> None:
        self._print(f"step {step}  sample:")
        self._print("\n".join(f"  | {line}" for line in text.splitlines()), "cyan")

    def checkpoint(self, step: int, folder: Path) -> None:
        self._print(f"step {step}  saved {folder}", "dim")

    def close(self) -> None:
        """Nothing to close."""

    def _print(self, text: str, style: str = "") -> None:
        self.out.print(Text(harmless(text), style))


class Bar(Lines):
    """A bar, with other messages above it."""

    def __init__(self, out: Console) -> None:
        super().__init__(out)
        self._bar = bars.Progress(
            bars.TextColumn("{task.completed}/{task.total}"),
            bars.BarColumn(bar_width=None),
            bars.TextColumn("{task.fields[figures]}"),
            bars.TextColumn("{task.fields[left]}"),
            console=out,
            expand=True,
        )

    def begin(self, plan: Plan) -> None:
        super().begin(plan)
        self._task = self._bar.add_task("", total=plan.steps, completed=plan.start, figures="", left="")
        self._bar.start()

    def progress(self, progress: Progress) -> None:
        left = f"{_left(progress.eta)} left"
        self._bar.update(self._task, completed=progress.step, figures=_figures(progress), left=left)

    def close(self) -> None:
        """Restore the terminal."""
        self._bar.stop()


class Events:
    """JSON lines: `event` names the kind of each."""

    def tokenizing(self, done: int) -> None:
        self._emit("tokenizing", bytes=done)

    def begin(self, plan: Plan) -> None:
        self._emit("begin", **asdict(plan) | {"folder": str(plan.folder)})

    def note(self, text: str) -> None:
        self._emit("note", text=text)

    def transfer(self, transfer: Transfer) -> None:
        self._emit("transfer", **asdict(transfer))

    def progress(self, progress: Progress) -> None:
        self._emit("progress", **asdict(progress))

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None:
        self._emit("evaluation", step=step, loss=loss, bits_per_byte=bits_per_byte)

    def sample(self, step: int, text: str) -> None:
        self._emit("sample", step=step, text=text)

    def checkpoint(self, step: int, folder: Path) -> None:
        self._emit("checkpoint", step=step, folder=str(folder))

    def close(self) -> None:
        """Nothing to close."""

    def _emit(self, event: str, **values: Any) -> None:
        emit({"event": event, **values}, line=True)


def _headline(plan: Plan) -> list[str]:
    learning = "" if plan.learning == plan.parameters else f", {plan.learning:,} trainable"
    goes_on = f", resuming from step {plan.start}" if plan.start else ""
    return [
        f"{plan.parameters:,} parameters{learning}; {plan.device}, {plan.precision}",
        f"{plan.steps:,} steps of {plan.tokens_per_step:,} tokens{goes_on}; output in {plan.folder}",
    ]


def _figures(progress: Progress) -> str:
    speed = f"{progress.tokens_per_second:,.0f} tokens/s"
    return f"loss {progress.loss:.4f}  {speed}  MFU {progress.mfu:.0%}"


def _left(seconds: float) -> str:
    """A duration in two units at most."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
