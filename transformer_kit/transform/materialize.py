"""Memory for a model on the meta device, and its weights: initial ones, or those of a file."""

from collections.abc import Mapping

import torch
from torch import Tensor

from transformer_kit.model.init import fill_unsaved, init_weights
from transformer_kit.model.model import Model


def materialize(model: Model, device: str | torch.device) -> Model:
    """Allocate parameters and buffers on `device`, with uninitialized values."""
    model.to_empty(device=device)
    return model


def fill(model: Model, seed: int) -> Model:
    """Initialize the weights. The same seed gives the same ones on every device."""
    init_weights(model, model.spec, seed)
    return model


def load(model: Model, tensors: Mapping[str, Tensor], device: str | torch.device) -> Model:
    """Use `tensors`, a full state dict, as the weights; compute non-persistent buffers on `device`."""
    fill_unsaved(model, device)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model
