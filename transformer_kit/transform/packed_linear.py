"""Weight prepacking for inference on CPUs: a second copy of each weight, in the order in which few rows read it.

Decoding multiplies one row for each sequence, and there a product waits for the weight: torch's product of one float32
row reads it at 16 GiB/s where a sum of the same memory reads 40 to 75 (two threads of an AMD EPYC with AVX-512).
Prompts and batches of other sizes use the weight itself.

    fbgemm   one row: columns one after another, added up as a bag of embeddings; 2.4 to 3.5 times the plain product on
             an AMD CPU with AVX-512, at 80 to 95 % of the speed of a sum
    mkl      several rows on Intel CPUs with AVX-512: 1.7 times at 8 rows, 1.3 times at 32
    onednn   everywhere else: with AVX2 1.9 times at one row, 2.7 at 8, 2.1 at 32; on AMD with AVX-512 2.6 times at 8

Private interfaces of torch, tried on 2.13: `torch.ops.mkldnn._reorder_linear_weight`, `_linear_pointwise` and
`_is_mkldnn_bf16_supported`, `torch.ops.mkl._mkl_reorder_linear_weight` and `_mkl_linear`, which the compiler calls for
frozen weights and no public function offers. Where they are missing, the weight itself is used.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transformer_kit.transform.cpu import prefers_mkl
from transformer_kit.transform.linear_layers import SameLinear, refuse_gradients, swapped
from transformer_kit.transform.onednn_linear import OnednnLinear, linear

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

MOST = 64
"""Rows beyond which the plain product is as fast."""
BLOCKS = 512
"""Rows that oneDNN is asked to make blocks for: large ones, which few rows are multiplied with faster as well."""
WIDTH = 768
"""Outputs of a bag at most. Threads take bags, of which all have as many. Of 384 to 2048 none was slower by more than
2 % (two threads of an AMD EPYC)."""

Packed = Callable[[Tensor], Tensor]
"""x (rows, 1, in) -> (rows, 1, out)."""
Packer = Callable[[Tensor, Tensor | None, int], Packed]
"""Makes one from a weight (out, in), a bias (out,) and the number of rows."""


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
    """Swap linear layers for packed ones where this CPU gains by it, for decoding `rows` sequences at a time."""

    def make(_: str, layer: nn.Linear) -> nn.Module | None:
        pack = packer(layer.weight, rows)
        return None if pack is None else PackedLinear(layer, pack, rows)

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
    if rows == 1 and "fbgemm" in torch.backends.quantized.supported_engines:
        return fbgemm
    return onednn if _has_onednn() else None


def packers(weight: Tensor, rows: int) -> list[Packer]:
    """Every layout that this machine knows for weights like this and so many rows."""
    known = [(torch.backends.mkl.is_available(), mkl), (_has_onednn(), onednn), (rows == 1, fbgemm)]
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
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: multiply(x, packed, bias, "none", [], "")


def fbgemm(weight: Tensor, bias: Tensor | None, rows: int) -> Packed:
    """For one row: W x is the sum of W's columns, each times an element of x, which is a bag of embeddings."""
    out, bags = len(weight), _bags(len(weight), torch.get_num_threads())
    width = -(-out // bags)
    filled = torch.nn.functional.pad(weight, (0, 0, 0, bags * width - out))
    table = filled.view(bags, width, -1).transpose(1, 2).reshape(-1, width)  # (bags in, width)
    index = torch.arange(len(table), dtype=torch.int32)
    starts = torch.arange(0, len(table), weight.shape[1], dtype=torch.int32)

    def multiply(x: Tensor) -> Tensor:
        weights = torch.cat([x.reshape(-1)] * bags)
        y = torch.embedding_bag(table, index, starts, False, 0, False, weights)[0].view(*x.shape[:-1], bags * width)
        y = y if bags * width == out else y[..., :out]
        return y if bias is None else y + bias

    return multiply


def _bags(out: int, threads: int) -> int:
    """How many bags of at most WIDTH outputs: as many for each thread, without remainder if twice as many do.

    They are two at least: FBGEMM takes 5 to 20 times as long for one (one thread of an AMD EPYC, 384 to 4096 outputs).
    """
    fewest = max(2, threads * -(-out // (threads * WIDTH)))
    return next((bags for bags in range(fewest, 2 * fewest + 1, threads) if out % bags == 0), fewest)


@cache
def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def _onednn_knows_bfloat16() -> bool:
    return _has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
