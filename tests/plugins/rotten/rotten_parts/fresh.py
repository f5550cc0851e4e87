"""A part that works, and things that are not what their entry points say."""

from torch import Tensor

from registry.context import Context
from registry.contracts import FFN, Activation, Site


class Fresh(Activation):
    """x."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Stray(FFN):
    """Announced as an activation, and none."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x


MADE = Fresh(Fresh.Options(), Site(d_model=1))
