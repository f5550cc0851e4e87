"""Learned positions (Gehring et al. 2017, arXiv:1705.03122; Radford et al. 2018, GPT)."""

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Position, Site
from registry.core import register


@register
class Learned(Position):
    """x[p] += table[p], with one row for each position up to max_seq_len."""

    acts = "embedding"
    shift_invariant = False

    def __init__(self, options: Position.Options, site: Site) -> None:
        super().__init__(options, site)
        self.table = nn.Embedding(site.max_seq_len, site.d_model)

    def embed(self, x: Tensor, context: Context) -> Tensor:
        return x + self.table(context.positions)
