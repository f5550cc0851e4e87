"""Weights laid out for few rows: what makes decoding on a processor as fast as memory is read.

Training multiplies thousands of rows at once, decoding one for each text, and there a matrix product waits for the
weights. Libraries read them faster, at 2 to 64 rows two to three times so, from a copy in the order in which they are
needed. The copy is made when generation begins and forgotten when it ends. The model's own weights stay as they are and
where they are, so that everything else goes on as before; they are used wherever the copy does not fit or is not fresh.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from operator import is_

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry.contracts import Head, ModelPart
from transformer_kit import machine

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
        for linears in _together(model):
            product = _Product(linears, packer, rows)
            for i, linear in enumerate(linears):
                linear.__dict__["forward"] = partial(product, i)
                changed.append((linear, "forward"))
        for module in model.modules():
            if isinstance(module, Head) and "project" not in module.__dict__:
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

    Measured on three machines with two cores. On an Intel with AVX-512, MKL's own packing: 1.7 times the plain product
    at 8 rows, 1.3 times at 32, no gain at one. Elsewhere that of oneDNN: with AVX2 1.9 times at one row, 2.7 at 8, 2.1
    at 32; on an AMD with AVX-512 1.9 times at one row, 2.5 at 8, 1.9 at 32, where MKL's is slower at 8 and 32.
    The choice is a rule, not a measurement of the moment, so that the same seed writes the same text.
    """
    if not _packable(weight) or rows > MOST or torch.is_autocast_enabled("cpu"):
        return None
    if _prefers_mkl():
        return None if rows == 1 else _mkl(rows)
    return _onednn(rows) if torch.backends.mkldnn.is_available() else None


@cache
def _prefers_mkl() -> bool:
    """Whether this is a processor for which MKL has kernels of its own."""
    wide = torch.cpu.get_capabilities().get("avx512_f", False)
    return bool(wide) and torch.backends.mkl.is_available() and machine.is_intel()


def _packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def _mkl(rows: int) -> Packer:
    def pack(weight: Tensor, bias: Tensor | None) -> Packed:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        multiply = torch.ops.mkl._mkl_linear.default
        shape = weight.new_empty(1).expand(weight.shape)  # all that is asked of it for so many rows
        return lambda x: multiply(x, packed, shape, bias, rows)

    return pack


def _onednn(rows: int) -> Packer:
    def pack(weight: Tensor, bias: Tensor | None) -> Packed:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        bias = None if bias is None else bias.detach()
        multiply = torch.ops.mkldnn._linear_pointwise.default
        return lambda x: multiply(x, packed, bias, "none", [], "")

    return pack


def _together(model: nn.Module) -> list[list[nn.Linear]]:
    """The linear layers to be packed, those that read the same features side by side, as their part says."""
    # What is changed already belongs to another generation with this model, which will change it back.
    left = {m: None for m in model.modules() if type(m) is nn.Linear and "forward" not in m.__dict__}
    left = {m: None for m in left if _packable(m.weight)}
    found = []
    for part in model.modules():
        for names in part.together if isinstance(part, ModelPart) else ():
            linears = [m for m in (getattr(part, name, None) for name in names) if m in left]
            found.append(linears)
            for linear in linears:
                del left[linear]
    return [linears for linears in [*found, *([m] for m in left)] if linears]


class _Copy:
    """A packed weight, and how to tell that it is not that weight any more."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor | None], packer: Packer, rows: int) -> None:
        self.weights, self.biases, self.rows = weights, biases, rows
        self.versions = _versions(weights, biases)
        # One weight alone is not copied: some layouts keep what they were made of.
        joined = weights[0] if len(weights) == 1 else torch.cat([w.detach() for w in weights])
        self.multiply = packer(joined, _joined(weights, biases))

    def fits(self, x: Tensor, weights: list[Tensor], biases: list[Tensor | None]) -> bool:
        """Whether the copy is of these weights as they are now, and made for products of this size."""
        if x.numel() != self.rows * x.shape[-1] or x.dtype != weights[0].dtype or torch.is_grad_enabled():
            return False
        same = all(map(is_, weights, self.weights)) and all(map(is_, biases, self.biases))
        return same and _versions(weights, biases) == self.versions


class _Product:
    """Stands in for the `forward` of linear layers that read the same features: multiplies once for all of them."""

    def __init__(self, linears: list[nn.Linear], packer: Packer, rows: int) -> None:
        self.linears = linears
        self.widths = [linear.out_features for linear in linears]
        self.copy = _Copy(*self._now(), packer, rows)
        self.x: Tensor | None = None
        self.results: list[Tensor | None] = []

    def __call__(self, index: int, x: Tensor) -> Tensor:
        linear = self.linears[index]
        fits = self.copy.fits(x, *self._now())
        if fits and x is not self.x:
            self.x, self.results = x, list(self.copy.multiply(x).split(self.widths, -1))
        result = self.results[index] if fits else None
        if result is None:
            return F.linear(x, linear.weight, linear.bias)
        self.results[index] = None  # given once: what asks again may have put something else into the same tensor
        return result

    def _now(self) -> tuple[list[Tensor], list[Tensor | None]]:
        return [linear.weight for linear in self.linears], [linear.bias for linear in self.linears]


class _Projection:
    """Stands in for a head's `project`, whose weight is known once it is used."""

    def __init__(self, packer: Packer, rows: int) -> None:
        self.packer, self.rows = packer, rows
        self.copy: _Copy | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _packable(weight):
            return F.linear(x, weight, bias)
        if self.copy is None:
            self.copy = _Copy([weight], [bias], self.packer, self.rows)
        return self.copy.multiply(x) if self.copy.fits(x, [weight], [bias]) else F.linear(x, weight, bias)


def _joined(weights: list[Tensor], biases: list[Tensor | None]) -> Tensor | None:
    """One bias for all; None where no layer has one."""
    if all(bias is None for bias in biases):
        return None
    pairs = zip(weights, biases, strict=True)
    return torch.cat([w.new_zeros(len(w)) if b is None else b.detach() for w, b in pairs])


def _versions(weights: list[Tensor], biases: list[Tensor | None]) -> list[int]:
    """Numbers that change with the values; those of inference tensors, which do not tell, are 0."""
    return [0 if t is None or t.is_inference() else t._version for t in (*weights, *biases)]
