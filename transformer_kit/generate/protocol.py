"""What generation asks of a model: a protocol, so that `Model` can offer `generate` and neither imports the other."""

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
    """Token ids to logits, with decode state."""

    @property
    def spec(self) -> Spec:
        """What it is made from: its vocabulary and its longest sequence count."""

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from, with its tokenizer."""

    @property
    def embedding(self) -> Any:
        """Its `weight` says where and in what type the model computes."""

    @property
    def prepared(self) -> bool:
        """Whether it was prepared for inference, so that it computes the same at each step."""

    def blocks(self) -> list[Any]:
        """All layers, to be compiled one by one."""

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
