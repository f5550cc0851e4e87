"""The card of a model, for `Model.describe`. Cost is counted on models, so a model cannot import it.

`transformer_kit/__init__.py`, which stands above both, sets `card_of`.
"""

from collections.abc import Callable
from typing import Any

card_of: Callable[[Any], Any]
"""From a spec to what `transformer_kit.cost.card.card` returns."""
