"""Weights laid out for few rows: what makes decoding on a processor as fast as memory is read.

Training multiplies thousands of rows at once, decoding one for each text, and there a matrix product waits for the
weights. Libraries read them faster, at 2 to 64 rows two to three times so, from a copy in the order in which they are
needed. The copy is made when generation begins and forgotten when it ends. The model's own weights stay as they are and
where they are, so that everything else goes on as before; they are used wherever the copy does not fit or is not fresh.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry.contracts import Head

MOST = 64
"""Rows beyond which the plain product is as fast."""

Packed = Callable[[Tensor], Tensor]
"""x (rows, 1, in) -> (rows, 1, out)."""
Packer = Callable[[Tensor, Tensor | None], Packed]
"""Makes one from a weight (out, in) and a bias (out,)."""


@contextmanager
def laid_out(model: nn.Module, packer: Packer | None, rows: int) -> Iterator[None]:
    """Inside, products of `rows` rows in `model` use packed copies of its weights; nothing changes without a `packer`.

    Results differ from the plain ones by rounding alone.
    """
    changed: list[tuple[nn.Module, str]] = []
    if packer is not None:
        for module in model.modules():
            # What is changed already belongs to another generation with this model, which will change it back.
            if type(module) is nn.Linear and "forward" not in module.__dict__ and _packable(module.weight):
                module.__dict__["forward"] = _Linear(module, packer, rows)
                changed.append((module, "forward"))
            elif isinstance(module, Head) and "project" not in module.__dict__:
                module.__dict__["project"] = _Projection(packer, rows)
                changed.append((module, "project"))
    try:
        yield
    finally:
        for module, name in changed:
            delattr(module, name)


def packers(rows: int) -> list[Packer]:
    """Every layout that this machine knows."""
    known = [(torch.backends.mkl.is_available(), _mkl), (torch.backends.mkldnn.is_available(), _onednn)]
    return [make(rows) for available, make in known if available]


def packer_for(weight: Tensor, rows: int) -> Packer | None:
    """The fastest layout known for weights like this and so many rows; None where the plain one is.

    Measured on two machines with two cores. With AVX-512, MKL's own packing: 1.7 times the plain product at 8 rows,
    1.3 times at 32, no gain at one. With AVX2, that of oneDNN: 1.9 times at one row, 2.7 at 8, 2.1 at 32.
    """
    if not _packable(weight) or rows > MOST:
        return None
    if torch.cpu.get_capabilities().get("avx512_f") and torch.backends.mkl.is_available():
        return None if rows == 1 else _mkl(rows)
    return _onednn(rows) if torch.backends.mkldnn.is_available() else None


def _packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def _mkl(rows: int) -> Packer:
    def pack(weight: Tensor, bias: Tensor | None) -> Packed:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        multiply = torch.ops.mkl._mkl_linear.default
        return lambda x: multiply(x, packed, weight, bias, rows)

    return pack


def _onednn(rows: int) -> Packer:
    def pack(weight: Tensor, bias: Tensor | None) -> Packed:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        bias = None if bias is None else bias.detach()
        multiply = torch.ops.mkldnn._linear_pointwise.default
        return lambda x: multiply(x, packed, bias, "none", [], "")

    return pack


class _Copy:
    """A packed weight, and how to tell that it is not that weight any more."""

    def __init__(self, weight: Tensor, bias: Tensor | None, packer: Packer, rows: int) -> None:
        self.weight, self.bias, self.rows = weight, bias, rows
        self.versions = _versions(weight, bias)
        self.multiply = packer(weight, bias)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        fresh = weight is self.weight and bias is self.bias and _versions(weight, bias) == self.versions
        if not fresh or x.numel() != self.rows * x.shape[-1] or torch.is_grad_enabled():
            return F.linear(x, weight, bias)
        return self.multiply(x)


class _Linear:
    """Stands in for a linear layer's `forward`."""

    def __init__(self, linear: nn.Linear, packer: Packer, rows: int) -> None:
        self.linear = linear
        self.copy = _Copy(linear.weight, linear.bias, packer, rows)

    def __call__(self, x: Tensor) -> Tensor:
        return self.copy(x, self.linear.weight, self.linear.bias)


class _Projection:
    """Stands in for a head's `project`, whose weight is known once it is used."""

    def __init__(self, packer: Packer, rows: int) -> None:
        self.packer, self.rows = packer, rows
        self.copy: _Copy | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _packable(weight):
            return F.linear(x, weight, bias)
        if self.copy is None:
            self.copy = _Copy(weight, bias, self.packer, self.rows)
        return self.copy(x, weight, bias)


def _versions(weight: Tensor, bias: Tensor | None) -> tuple[int, int]:
    """Numbers that change with the values; those of inference tensors, which do not tell, are 0."""
    first = 0 if weight.is_inference() else weight._version
    return first, 0 if bias is None or bias.is_inference() else bias._version
