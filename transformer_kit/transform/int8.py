"""Int8 weight-only quantization for inference on CPUs: each row of a weight in 256 steps, with one scale.

    w = round(W / s), s = max |W| / 127 of each output;   y = (x w^T) s + b

For one sequence at a time it is `int8_bag` instead, which is faster there.

A product of few rows is torch's own int8 kernel, which multiplies in bfloat16 and adds in float32; of many rows the
weight is converted for the product, in the type of x. The weight itself is not kept.

Private interface of torch, tried on 2.13: `torch._weight_int8pack_mm`, for which there is no public function. Without
it each product converts the weight, and where the input's width is no multiple of 32, beyond whose end it would read.
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
"""What the int8 kernel reads at once."""
FEW = 32
"""Rows up to which the int8 kernel is faster than a product with the converted weight."""
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
        """Whether the int8 kernel takes this weight."""
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

    Layers whose weight is used in another way than by calling them stay. Raises ValueError for models on another device
    or in another type.
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
