"""Token embedding: one learned vector for each id (Bengio et al. 2003, JMLR 3)."""

from torch import Tensor, nn

from registry.contracts import Embedding, Site
from registry.core import register
from registry.options import Positive


@register
class Token(Embedding):
    """scale * weight[tokens]."""

    class Options(Embedding.Options):
        scale: Positive = 1.0
        """Multiplies the vectors; sqrt(d_model) in the 2017 Transformer and in Gemma."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.scale = options.scale
        self.table = nn.Embedding(site.vocab_size, site.d_model)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The table (V, D)."""
        return self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens) * self.scale
