"""What a run tells while it runs. The engine calls a `Reporter`; whoever started it decides how that looks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformer_kit.train.transfer import Transfer


@dataclass(frozen=True)
class Plan:
    """What is about to run."""

    folder: Path
    start: int
    """Steps already done: 0, or those of the checkpoint that the run resumes from."""
    steps: int
    """Steps of the whole run."""
    tokens_per_step: int
    parameters: int
    learning: int
    """How many of the parameters learn."""
    device: str
    precision: str
    flops_per_token: float
    """Of a forward and a backward pass."""
    peak_flops: float
    """Per second; what MFU is measured against."""


@dataclass(frozen=True)
class Progress:
    """Where the run stands."""

    step: int
    steps: int
    loss: float
    """Mean over the valid targets of the last step, in nats."""
    lr: float
    tokens_per_second: float
    mfu: float
    """Share of the peak that the model's own arithmetic reaches."""
    eta: float
    """Seconds to the end, at the pace since the start."""


class Reporter(Protocol):
    """Takes what a run has to say. Called often; must not be slow and must not raise."""

    def tokenizing(self, done: int) -> None:
        """So many bytes of the corpus are tokenized; not called when they are found in the cache."""

    def begin(self, plan: Plan) -> None:
        """The first step comes next."""

    def note(self, text: str) -> None:
        """One line that is worth reading: a choice made for the user, something skipped."""

    def transfer(self, transfer: Transfer) -> None:
        """The model differs from the trained one that it starts from; this is what it takes over."""

    def progress(self, progress: Progress) -> None:
        """Some steps were done."""

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None:
        """The validation loss, in nats per token, and in bits per byte of text."""

    def sample(self, step: int, text: str) -> None:
        """What the model writes, prompt included."""

    def checkpoint(self, step: int, folder: Path) -> None:
        """The run can be resumed from this step."""


class Silent:
    """The reporter that says nothing."""

    def tokenizing(self, done: int) -> None: ...

    def begin(self, plan: Plan) -> None: ...

    def note(self, text: str) -> None: ...

    def transfer(self, transfer: Transfer) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None: ...

    def sample(self, step: int, text: str) -> None: ...

    def checkpoint(self, step: int, folder: Path) -> None: ...
