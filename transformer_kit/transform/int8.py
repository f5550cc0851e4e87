"""Int8 weight-only quantization for inference on CPUs, with one scale for each output of a weight.

    w = round(W / s), s = max |W| / 127 of each output;   y = (x w^T) s + b

For one sequence at a time `int8_bag` replaces it, which is faster there.

For few rows the product is torch's int8 kernel, which multiplies in bfloat16 and accumulates in float32. For many rows
the weight is converted to the type of x first. The original weight is not kept.

Private interface of torch, tried on 2.13: `torch._weight_int8pack_mm`, which has no public counterpart. Without it,
each product converts the weight; also where the input size is no multiple of 32, which the kernel would read past.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_kit.transform.calls import called_at_times, passes
from transformer_kit.transform.int8_bag import Int8BagLinear
from transformer_kit.transform.linear_layers import QuantizedLinear, refuse_gradients, swapped
from transformer_kit.transform.onednn_linear import OnednnLinear
from transformer_kit.transform.split_groups import split_groups

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

LANES = 32
"""Block size of the int8 kernel's loads."""
FEW = 32
"""Largest number of rows for which the int8 kernel is faster than a product with the converted weight."""
TYPES = (torch.float32, torch.bfloat16)


class Int8Linear(QuantizedLinear):
    """(x w^T) s + b with w (out, in) in int8 and s (out,)."""

    quantized: Tensor
    scales: Tensor
    ones: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        weight = layer.weight.detach().float()
        scales = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self.register_buffer("quantized", (weight / scales[:, None]).round().to(torch.int8))
        self.register_buffer("scales", scales.to(layer.weight.dtype))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        self.packs = layer.in_features % LANES == 0 and hasattr(torch, "_weight_int8pack_mm")
        """Whether the int8 kernel supports this weight."""
        self.register_buffer("ones", torch.ones(len(weight), dtype=torch.bfloat16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        refuse_gradients(x, "an int8 linear layer")
        flat = x.reshape(-1, self.in_features)
        if self.packs and 0 < len(flat) <= FEW:
            y = torch._weight_int8pack_mm(flat.to(torch.bfloat16), self.quantized, self.ones).to(x.dtype)
        else:
            y = F.linear(flat, self.quantized.to(x.dtype))
        y = (y * self.scales).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias


@torch.no_grad()
def int8(model: "Model", rows: int = 1) -> "Model":
    """Swap linear layers for int8 ones, to decode `rows` sequences at a time.

    Layers whose weight is also used in other ways stay. Raises ValueError for models on another device or in another
    dtype.
    """
    weight = model.embedding.weight
    if not weight.is_cpu:
        raise ValueError(f"int8 is for models on a CPU, the model is on {weight.device}; leave int8 out")
    if weight.dtype not in TYPES:
        kind = str(weight.dtype).removeprefix("torch.")
        raise ValueError(f"int8 is for models in float32 or bfloat16, got {kind}; leave int8 out or choose a dtype")
    kept = called_at_times(passes(model))
    split_groups(model)
    one = rows == 1 and "fbgemm" in torch.backends.quantized.supported_engines
    made: type[QuantizedLinear] = Int8BagLinear if one else Int8Linear
    swapped(model, lambda _, layer: None if layer in kept else made(layer), OnednnLinear)
    return model
