"""Optimizers."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

from pydantic import Field
from torch import nn
from torch.optim import Optimizer as TorchOptimizer

from registry import options as _options
from registry.part import Part


class Optimizer(Part, ABC):
    """Builds a torch optimizer."""

    family = "optimizer"

    class Options(_options.Options):
        """Options of every optimizer."""

        lr: _options.Positive = Field(examples=[1e-3, 0.5, 2.0])
        """Peak learning rate; the schedule scales it."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def make(self, model: nn.Module) -> TorchOptimizer:
        """A torch optimizer over the model's parameters that require a gradient."""


OptimizerSlot = Annotated[_options.Options, _options.Slot("optimizer")]
