"""Extra vocabulary rows for tokenizer ids beyond the embedding table."""

import torch
from torch import Tensor, nn

from transformer_kit.spec.schema import Spec


def with_vocabulary(spec: Spec, size: int) -> Spec:
    """The spec with another vocab_size."""
    page = spec.resolved()
    return Spec.of({**page, "model": {**page["model"], "vocab_size": size}})


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each of a model's tensors."""
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


def with_rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor in its new shape. A new row is the mean of the existing rows, so no new id is ever the likeliest."""
    if tuple(tensor.shape) == shape:
        return tensor
    mean = tensor.float().mean(dim=0, keepdim=True).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(shape[0] - len(tensor), *shape[1:])])
