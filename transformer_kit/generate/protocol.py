"""The model interface of generation: a protocol, so that `Model.generate` needs no import cycle."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from registry.state import DecodeState
from transformer_kit.spec.schema import Spec


class Output(Protocol):
    """What a forward pass returns."""

    @property
    def logits(self) -> Tensor:
        """(B, T, V)."""


class LanguageModel(Protocol):
    """Maps token ids to logits, with a decode state."""

    @property
    def spec(self) -> Spec:
        """Its spec, with vocabulary and max_seq_len."""

    @property
    def folder(self) -> Path | None:
        """The folder that it was loaded from, with its tokenizer."""

    @property
    def embedding(self) -> Any:
        """Its `weight` has the device and dtype of the model."""

    @property
    def prepared(self) -> bool:
        """Whether it was prepared for inference, so that each step runs the same operators."""

    def blocks(self) -> list[Any]:
        """All layers, for compilation one by one."""

    def __call__(
        self, tokens: Tensor, *, segments: Tensor | None = None, state: DecodeState | None = None, last: bool = False
    ) -> Output:
        """As `Model.forward`."""

    def state(self, batch: int, max_length: int | None = None) -> DecodeState:
        """Empty decode state."""

    def modules(self) -> Iterator[nn.Module]:
        """As `nn.Module.modules`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As `nn.Module.parameters`."""

    def eval(self) -> Any:
        """As `nn.Module.eval`."""
