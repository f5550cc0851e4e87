"""PyTorch's defaults: what `nn.Linear` and `nn.Embedding` draw for themselves, as hand-written models do.

The bound is that of He et al. 2015, arXiv:1502.01852, with a = sqrt(5).
"""

from torch import Generator, Tensor, nn

from registry.contracts import Init, Weight
from registry.core import register


@register
class Torch(Init):
    """weight, bias ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in)) of projections; tables ~ N(0, 1)."""

    def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
        if where.is_table:
            nn.init.normal_(weight, generator=generator)
        else:
            self.fill_bias(weight, where, generator)

    def fill_bias(self, bias: Tensor, where: Weight, generator: Generator) -> None:
        bound = where.fan_in**-0.5
        nn.init.uniform_(bias, -bound, bound, generator=generator)
