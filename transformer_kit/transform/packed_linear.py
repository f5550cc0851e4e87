"""Weight prepacking for inference on CPUs: a second copy of each weight, in an order that suits few rows.

Decoding multiplies one row for each sequence, so loading the weight takes most of the time. Prompts and other batch
sizes use the weight itself.

    transposed  one row: the weight transposed and split along its inputs, one piece for a thread or more
    mkl         several rows on Intel CPUs with AVX-512: MKL's packed format
    onednn      several rows on other CPUs: oneDNN's blocked format

GB/s at which a product of one float32 row loads an uncached weight (AMD EPYC of the fourth generation, two threads, a
loaded machine, the 2nd percentile of about 100 calls that take turns):

    weight        plain   onednn   transposed   sum of embeddings (FBGEMM)
    2304 x 768    11.4    15.6     27.7         22.9
    3072 x 768    11.2    16.5     34.0         18.8
    768 x 3072    14.1    17.1     24.4         24.7
    768 x 768     11.5    16.6     23.5         24.2

Speedup over the plain product with several rows:

    layout, CPU             8 rows   32 rows
    mkl                     1.7      1.3
    onednn, AVX2            2.7      2.1
    onednn, AMD, AVX-512    2.6      2.0

Private interfaces of torch, tried on 2.13: `torch.ops.mkldnn._reorder_linear_weight`, `_linear_pointwise` and
`_is_mkldnn_bf16_supported`, `torch.ops.mkl._mkl_reorder_linear_weight` and `_mkl_linear`, which the compiler calls for
frozen weights and no public function offers. Without them, the weight itself is used.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transformer_kit.transform.cpu import prefers_mkl
from transformer_kit.transform.linear_layers import SameLinear, refuse_gradients, swapped
from transformer_kit.transform.onednn_linear import POINTWISE, OnednnLinear, linear
from transformer_kit.transform.split_groups import split_groups

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

MOST = 64
"""Largest number of rows for which packing pays."""
BLOCKS = 512
"""Number of rows for which oneDNN chooses its blocks; larger blocks are faster for few rows as well."""
PIECES = 4
"""Least number of pieces of a transposed weight, where it divides the inputs: two were up to a tenth slower."""

Packed = Callable[[Tensor], Tensor]
"""x (rows, 1, in) -> (rows, 1, out)."""
Packer = Callable[[Tensor, Tensor | None, int], Packed]
"""Creates a layout from a weight (out, in), a bias (out,) and the number of rows."""


class PackedLinear(SameLinear):
    """x W^T + b, with a packed copy of W for products of exactly `rows` rows."""

    def __init__(self, layer: nn.Linear, pack: Packer, rows: int) -> None:
        super().__init__(layer)
        bias = None if layer.bias is None else layer.bias.detach()
        self.packed = pack(layer.weight.detach(), bias, rows)
        self.rows = rows
        self.layout = pack.__name__

    def forward(self, x: Tensor) -> Tensor:
        refuse_gradients(x, "a packed linear layer")
        if x.numel() == self.rows * self.in_features:
            return self.packed(x)
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rows={self.rows}, layout={self.layout}"


def packed_linear(model: "Model", rows: int) -> "Model":
    """Swap linear layers for packed ones on CPUs where this is faster, for decoding `rows` sequences at a time."""

    def make(_: str, layer: nn.Linear) -> nn.Module | None:
        pack = packer(layer.weight, rows)
        return None if pack is None else PackedLinear(layer, pack, rows)

    if rows == 1:  # with more rows, the number of rows for each expert varies
        split_groups(model)
    swapped(model, make, OnednnLinear)
    return model


def packer(weight: Tensor, rows: int) -> Packer | None:
    """The fastest layout for weights like this and so many rows; None where the weight itself is as fast.

    A rule, not a measurement of the moment, so that the same seed generates the same tokens.
    """
    if not weight.is_cpu or not weight.numel() or not 1 <= rows <= MOST:
        return None
    if weight.dtype == torch.bfloat16:
        return onednn if _onednn_knows_bfloat16() else None
    if weight.dtype != torch.float32:
        return None
    if prefers_mkl():
        return None if rows == 1 or not hasattr(torch.ops.mkl, "_mkl_linear") else mkl
    if rows == 1:
        return transposed
    return onednn if _has_onednn() else None


def packers(weight: Tensor, rows: int) -> list[Packer]:
    """Every layout that this machine knows for weights like this and so many rows."""
    known = [(torch.backends.mkl.is_available(), mkl), (_has_onednn(), onednn), (rows == 1, transposed)]
    return [pack for available, pack in known if available and weight.dtype == torch.float32]


def mkl(weight: Tensor, bias: Tensor | None, rows: int) -> Packed:
    """MKL's own packing, of float32."""
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
    multiply = torch.ops.mkl._mkl_linear.default
    shape = weight.new_empty(1).expand(weight.shape)  # all that is asked of it for so many rows
    return lambda x: multiply(x, packed, shape, bias, rows)


def onednn(weight: Tensor, bias: Tensor | None, rows: int) -> Packed:
    """The blocks that oneDNN's kernels read."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, BLOCKS)
    assert POINTWISE is not None
    multiply = POINTWISE.default
    return lambda x: multiply(x, packed, bias, "none", [], "")


def transposed(weight: Tensor, bias: Tensor | None, rows: int) -> Packed:
    """For one row: the sum of x_piece W_piece^T over pieces of the inputs, with one thread for each piece."""
    out, width = weight.shape
    most = max(PIECES, torch.get_num_threads())
    pieces = next(n for n in range(most, 0, -1) if width % n == 0)
    table = weight.t().contiguous().view(pieces, width // pieces, out)

    def multiply(x: Tensor) -> Tensor:
        y = torch.bmm(x.reshape(pieces, 1, -1), table).sum(0).view(*x.shape[:-1], out)
        return y if bias is None else y + bias

    return multiply


@cache
def _has_onednn() -> bool:
    return POINTWISE is not None


@cache
def _onednn_knows_bfloat16() -> bool:
    return _has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
