"""How many parameters a config describes, and whether files that hold its weights can be there at all."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.weights import Weights
from transformer_kit.convert.words import of_config
from transformer_kit.model.build import assemble_distinct
from transformer_kit.spec.schema import Spec

SPARED = 1_000_000
"""Parameters up to which every tensor that is missing is named, however many there are."""


def parameters_of(spec: Spec, config: Mapping[str, Any], declaration: Declaration) -> int:
    """Parameters of the model, counted on the layers that differ. Raises ConvertError where it cannot be built."""
    with of_config(config, declaration):
        model, places = assemble_distinct(spec)
    repeated = sum((len(p) - 1) * _elements(layer) for layer, p in zip(model.blocks(), places, strict=True))
    return _elements(model) + repeated


def check_amount(weights: Weights, parameters: int) -> None:
    """Raise ConvertError where most weights are missing: to name them would mean to build all of a model that may be
    too large for it.
    """
    held = sum(math.prod(weights.shape(name)) for name in weights.names())
    if parameters > SPARED + 4 * held:
        text = f"its files hold {held:,} weights, and {parameters:,} make the model that its config describes"
        raise ConvertError(str(weights.folder), [f"{text}; bring the files that are missing"])


def _elements(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
