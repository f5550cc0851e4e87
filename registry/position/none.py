"""No positions: order is known from the causal mask alone (Haviv et al. 2022, arXiv:2203.16634)."""

from registry.contracts import Position
from registry.core import register


@register
class NoPosition(Position):
    """Adds nothing anywhere."""
