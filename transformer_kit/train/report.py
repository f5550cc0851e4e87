"""Progress of a run. The engine calls a `Reporter`; the caller of the run decides how to show it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformer_kit.train.transfer import Transfer


@dataclass(frozen=True)
class Plan:
    """Facts about a run before it starts."""

    folder: Path
    start: int
    """Steps already done: 0, or the step of the checkpoint that the run resumes from."""
    steps: int
    """Total number of steps."""
    tokens_per_step: int
    parameters: int
    learning: int
    """Number of trainable parameters."""
    device: str
    precision: str
    flops_per_token: float
    """FLOPs of a forward and backward pass for each token."""
    peak_flops: float
    """Peak FLOP/s for MFU."""


@dataclass(frozen=True)
class Progress:
    """Progress of the run."""

    step: int
    steps: int
    loss: float
    """Mean over the valid targets of the last step, in nats."""
    lr: float
    tokens_per_second: float
    mfu: float
    """Model FLOPs utilization."""
    eta: float
    """Estimated seconds to the end, at the mean speed since the start."""


class Reporter(Protocol):
    """Receives the events of a run. Its methods are called often; they must be fast and must not raise."""

    def tokenizing(self, done: int) -> None:
        """Number of bytes of the corpus that are tokenized; not called when the cache has the tokens."""

    def begin(self, plan: Plan) -> None:
        """The first step comes next."""

    def note(self, text: str) -> None:
        """A note of one line: a choice made for the user, or a skipped item."""

    def transfer(self, transfer: Transfer) -> None:
        """The model differs from the trained one that it starts from; `transfer` says which tensors are loaded."""

    def progress(self, progress: Progress) -> None:
        """Some steps were done."""

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None:
        """The validation loss, in nats per token, and in bits per byte of text."""

    def sample(self, step: int, text: str) -> None:
        """Generated text, prompt included."""

    def checkpoint(self, step: int, folder: Path) -> None:
        """A checkpoint of this step was written."""


class Silent:
    """The reporter that does nothing."""

    def tokenizing(self, done: int) -> None: ...

    def begin(self, plan: Plan) -> None: ...

    def note(self, text: str) -> None: ...

    def transfer(self, transfer: Transfer) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None: ...

    def sample(self, step: int, text: str) -> None: ...

    def checkpoint(self, step: int, folder: Path) -> None: ...
