"""Token embedding: one learned vector for each id (Bengio et al. 2003, JMLR 3; narrow tables: Lan et al. 2019, ALBERT,
arXiv:1909.11942; types: Devlin et al. 2018, BERT, arXiv:1810.04805).
"""

from torch import Tensor, nn

from registry.contracts import Embedding, Norm, NormSlot, Site
from registry.core import register
from registry.options import Count, Positive, Width, named


@register
class Token(Embedding):
    """widen(norm(scale * weight[tokens] + types[0]))."""

    class Options(Embedding.Options):
        scale: Positive = 1.0
        """Multiplies the vectors; sqrt(d_model) in the 2017 Transformer and in Gemma."""
        width: Width | None = None
        """Width of the table, with a projection to d_model; d_model without a projection when not given."""
        norm: NormSlot = named("none")
        """Norm of the vectors."""
        types: Count | None = None
        """Number of token-type vectors (BERT); all tokens have type 0. No type vector when not given."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, int]:
        return {"width": site.d_model if options.width is None else options.width}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        width = self.derived(options, site)["width"]
        self.scale = options.scale
        self.table = nn.Embedding(site.vocab_size, width)
        self.types = None if options.types is None else nn.Embedding(options.types, width)
        self.norm = site.inside(d_model=width).build(options.norm, Norm)
        self.widen = nn.Identity() if options.width is None else nn.Linear(width, site.d_model, bias=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The table (V, width)."""
        return self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        x = x if self.scale == 1 else x * self.scale
        return self.widen(self.norm(x if self.types is None else x + self.types.weight[0]))
