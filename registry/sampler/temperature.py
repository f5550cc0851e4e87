"""Temperature (Ackley, Hinton & Sejnowski 1985, A Learning Algorithm for Boltzmann Machines)."""

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from registry.contracts import Sampler
from registry.core import register


@register
class Temperature(Sampler):
    """logits / value, up to a constant: below 1 sharpens the distribution, above 1 flattens it."""

    class Options(Sampler.Options):
        value: Annotated[float, Ge(1e-3), Le(1e3)] = 1.0
        """The temperature; for 0 use `greedy`."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.value = options.value

    def apply(self, logits: Tensor) -> Tensor:
        # From the largest down, so that no quotient overflows.
        return (logits - logits.amax(dim=-1, keepdim=True)) / self.value
