"""Orders of a weight in memory in which products of few rows read it fast, and the rule that picks one.

    pack = layout_for(weight, rows=1)
    multiply = pack(weight, bias)   # a copy
    y = multiply(x)                 # x W^T + b

Measured with two threads of an AMD EPYC with AVX-512: a plain float32 product of one row reads a weight at 16 GiB/s, of
memory whose sum is read at 40 to 75 GiB/s by the moment.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from registry.processor import is_intel

MOST = 64
"""Rows beyond which the plain product is as fast."""
BLOCKS = 512
"""Rows that oneDNN is asked to make blocks for: large ones, which few rows are multiplied with faster as well."""
WIDTH = 768
"""Outputs of a part of a weight, at most. Threads take parts, of which all have as many. Of 384 to 2048 none was slower
by more than 2 % (two threads of an AMD EPYC); 8 parts of each weight, narrow ones of the small, were by 8 %."""
BAGS = 8
"""Parts where weights are rounded, or as many as threads: each has steps of its own, so with more it is less off."""

Packed = Callable[[Tensor], Tensor]
"""x (rows, 1, in) -> (rows, 1, out)."""
Packer = Callable[[Tensor, Tensor | None], Packed]
"""Makes one from a weight (out, in) and a bias (out,)."""


def packable(weight: Tensor) -> bool:
    """Whether there is any layout for weights of this kind."""
    if weight.device.type != "cpu" or not weight.numel():
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _knows_bfloat16())


def layouts(rows: int) -> list[Packer]:
    """Every layout that this machine knows for so many rows, but those that round."""
    known = [
        (torch.backends.mkl.is_available(), mkl(rows)),
        (torch.backends.mkldnn.is_available(), onednn),
        (rows == 1, columns),
    ]
    return [pack for available, pack in known if available]


def layout_for(weight: Tensor, rows: int) -> Packer | None:
    """The fastest layout known for weights like this and so many rows; None where the plain one is.

    Measured on three machines with two cores. On an Intel with AVX-512, MKL's own packing: 1.7 times the plain product
    at 8 rows, 1.3 times at 32, no gain at one. Elsewhere that of oneDNN: with AVX2, in blocks for as many rows, 1.9
    times at one row, 2.7 at 8, 2.1 at 32; on an AMD with AVX-512 2.6 times at 8 and 2.0 at 32, where MKL's is slower
    than the plain one. At one row that AMD reads columns with FBGEMM at 80 to 95 % of the speed of a sum, 2.4 to 3.5
    times that of the plain product, and the blocks of oneDNN 5 % slower.
    In bfloat16, which it multiplies itself, oneDNN's gives 1.35 times at 1 to 8 rows and 1.3 at 32.
    The choice is a rule, not a measurement of the moment, so that the same seed writes the same text.
    """
    if not packable(weight) or rows > MOST or torch.is_autocast_enabled("cpu"):
        return None
    if weight.dtype == torch.float32:
        if _prefers_mkl():
            return None if rows == 1 else mkl(rows)
        if rows == 1 and _has_fbgemm():
            return columns
    return onednn if torch.backends.mkldnn.is_available() else None


def mkl(rows: int) -> Packer:
    """MKL's own packing, of float32."""

    def pack(weight: Tensor, bias: Tensor | None) -> Packed:
        if weight.dtype != torch.float32:
            return onednn(weight, bias)
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        multiply = torch.ops.mkl._mkl_linear.default
        shape = weight.new_empty(1).expand(weight.shape)  # all that is asked of it for so many rows
        return lambda x: multiply(x, packed, shape, bias, rows)

    return pack


def onednn(weight: Tensor, bias: Tensor | None) -> Packed:
    """The blocks that oneDNN's kernels take."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), BLOCKS)
    bias = None if bias is None else bias.detach()
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: multiply(x, packed, bias, "none", [], "")


def columns(weight: Tensor, bias: Tensor | None) -> Packed:
    """For one row, columns one after another: W x is their sum, each times a feature of x, a bag of embeddings."""
    bags = _parts(len(weight), torch.get_num_threads())
    table, bias, out = _bags(weight, bags), None if bias is None else bias.detach(), len(weight)
    index, starts = _places(table, weight)
    filled = bags * table.shape[1]

    def multiply(x: Tensor) -> Tensor:
        weights = torch.cat([x.reshape(-1)] * bags)
        y = torch.embedding_bag(table, index, starts, False, 0, False, weights)[0]
        return _finished(y, x, out, filled, bias)

    return multiply


def eight_bits(weight: Tensor, bias: Tensor | None) -> Packed:
    """As `columns`, each part of a column rounded to 256 steps from its least number to its largest."""
    ops: Any = torch.ops.quantized
    bags, out = max(BAGS, torch.get_num_threads()), len(weight)
    exact, bias = _bags(weight, bags), None if bias is None else bias.detach()
    table, (index, starts) = ops.embedding_bag_byte_prepack(exact.float()), _places(exact, weight)
    bag, filled = ops.embedding_bag_byte_rowwise_offsets.default, bags * exact.shape[1]

    def multiply(x: Tensor) -> Tensor:
        weights = torch.cat([x.reshape(-1).float()] * bags)
        y = bag(table, index, starts, False, 0, False, weights, None, False).to(x.dtype)
        return _finished(y, x, out, filled, bias)

    return multiply


def _parts(out: int, threads: int) -> int:
    """Into how many parts of at most WIDTH outputs threads divide a weight: without remainder, if twice as many do.

    They are two at least: FBGEMM takes 5 to 20 times as long for one (one thread of an AMD EPYC, 384 to 4096 outputs).
    """
    fewest = max(2, threads * -(-out // (threads * WIDTH)))
    return next((bags for bags in range(fewest, 2 * fewest + 1, threads) if out % bags == 0), fewest)


def _bags(weight: Tensor, bags: int) -> Tensor:
    """The weight (out, in) as rows of columns: (bags in, out / bags), outputs filled up with zeros."""
    weight, width = weight.detach(), -(-len(weight) // bags)
    filled = torch.nn.functional.pad(weight, (0, 0, 0, bags * width - len(weight)))
    return filled.view(bags, width, -1).transpose(1, 2).reshape(-1, width)


def _places(table: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows of the table the bags add up, and where each bag begins among them."""
    length = len(table)
    return torch.arange(length, dtype=torch.int32), torch.arange(0, length, weight.shape[1], dtype=torch.int32)


def _finished(y: Tensor, x: Tensor, out: int, filled: int, bias: Tensor | None) -> Tensor:
    """The bags' sums, which are `filled`, as the product, shaped like x, with the bias."""
    y = y.view(*x.shape[:-1], filled)
    y = y if filled == out else y[..., :out]
    return y if bias is None else y + bias


@cache
def _prefers_mkl() -> bool:
    """Whether this is a processor for which MKL has kernels of its own."""
    wide = torch.cpu.get_capabilities().get("avx512_f", False)
    return bool(wide) and torch.backends.mkl.is_available() and is_intel()


@cache
def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


@cache
def _knows_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
