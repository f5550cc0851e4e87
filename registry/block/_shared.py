"""How a branch joins the residual stream."""

from torch import Tensor, nn

from registry.contracts import Block, Norm, Position, Site


class Scale(nn.Module):
    """factor * x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def joining(site: Site, scale: float) -> nn.Module:
    """What a branch passes before it is added: dropout, and `residual_scale` where there is one."""
    dropout = nn.Dropout(site.dropout) if site.dropout else nn.Identity()
    return dropout if scale == 1 else nn.Sequential(dropout, Scale(scale))


def own(site: Site, options: Block.Options) -> Site:
    """The site of a block's children: the block's own norm and position in place of the model's."""
    return site.using(options.norm, Norm).using(options.position, Position)
