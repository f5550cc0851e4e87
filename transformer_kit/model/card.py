"""The cost report for `Model.describe`. `cost` imports models, so a model cannot import `cost`.

`transformer_kit/__init__.py`, which imports both, sets `card_of`.
"""

from collections.abc import Callable
from typing import Any

card_of: Callable[[Any], Any]
"""From a spec to the result of `transformer_kit.cost.card.card`."""
