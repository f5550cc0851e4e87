"""No positional encoding (NoPE): the causal mask alone orders tokens (Haviv et al. 2022, arXiv:2203.16634)."""

from registry.contracts import Position
from registry.core import register


@register
class NoPosition(Position):
    """x, q, k and scores unchanged."""
