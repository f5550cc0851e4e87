"""Learned positions (Gehring et al. 2017, arXiv:1705.03122; Radford et al. 2018, GPT; with a norm: Devlin et al. 2018,
BERT, arXiv:1810.04805).
"""

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Norm, NormSlot, Position, Site
from registry.core import register
from registry.options import Natural, named


@register
class Learned(Position):
    """x[p] = norm(x[p] + table[p + offset]), with one row for each position up to max_seq_len."""

    acts = "embedding"
    shift_invariant = False

    class Options(Position.Options):
        offset: Natural = 0
        """Row of the first position; 2 in OPT."""
        norm: NormSlot = named("none")
        """Norm of the sum."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.offset = options.offset
        self.table = nn.Embedding(site.max_seq_len + options.offset, site.d_model)
        self.norm = site.build(options.norm, Norm)

    def embed(self, x: Tensor, context: Context) -> Tensor:
        return self.norm(x + self.table(context.positions + self.offset))
