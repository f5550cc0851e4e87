"""Checks of a kernel against a plain implementation of attention that uses the description of the mask alone."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from registry.context import PADDING, Mask
from registry.contracts import Kernel
from transformer_kit.testing.carriers import agree
from transformer_kit.testing.checks import check
from transformer_kit.testing.place_checks import each

ROWS, HEADS, HEAD_DIM = 2, 4, 6


@dataclass(frozen=True)
class Case:
    """One case of attention: positions of queries and keys, mask, and changes of the scores."""

    start: int
    length: int
    keys: int | tuple[int, ...]
    window: int | None
    segments: tuple[tuple[int, ...], ...] | None
    causal: bool = True
    kv_heads: int = HEADS
    softcap: float | None = None
    bias: Literal["none", "shared", "row"] = "none"
    sunk: bool = False
    chunk: int | None = None

    @property
    def places(self) -> list[int]:
        """Index of each key."""
        return list(range(self.keys)) if isinstance(self.keys, int) else list(self.keys)

    def mask(self) -> Mask:
        """The description as a mixer gives it."""
        keys = self.keys if isinstance(self.keys, int) else torch.tensor(self.keys)
        ours = theirs = None
        if self.segments is not None:
            row = torch.tensor(self.segments)
            ours, theirs = row[:, self.start : self.start + self.length], row[:, self.places]
        cpu = torch.device("cpu")
        return Mask(self.start, self.length, keys, self.causal, self.window, cpu, ours, theirs, self.chunk)

    def sees(self, row: int, query: int, key: int) -> bool:
        """Whether the token at index `query` attends to the one at index `key`."""
        apart = self.segments is not None and self.segments[row][query] != self.segments[row][key]
        ahead = self.causal and key > query
        far = self.window is not None and abs(query - key) >= self.window
        beyond = self.chunk is not None and self._block(row, query) != self._block(row, key)
        return not (apart or ahead or far or beyond)

    def _block(self, row: int, index: int) -> int:
        """The block of its document that the token at `index` is in."""
        assert self.chunk is not None
        begin = 0 if self.segments is None else self.segments[row].index(self.segments[row][index])
        return (index - begin) // self.chunk


def cases() -> Iterator[Case]:
    """All cases of mixers: cache, rolling cache; window, segments, grouped heads, softcap, bias, sinks."""
    divided = ((PADDING, PADDING, 0, 0, 0, 0, 0, 0), (0, 0, 0, 1, 1, 1, 2, 2))
    ring = (5, 6, 7, 3, 4)
    for start, length, keys in ((0, 8, 8), (3, 5, 8), (7, 1, 8), (0, 1, 1)):
        for window, segments in itertools.product((None, 3, 1, 50), (None, divided)):
            yield Case(start, length, keys, window, segments)
        for chunk, segments in itertools.product((3, 50), (None, divided)):
            yield Case(start, length, keys, None, segments, chunk=chunk)
    yield Case(7, 1, ring, 5, None)
    yield Case(7, 1, ring, 5, divided)
    yield Case(6, 2, (2, 3, 4, 5, 6, 7), 5, divided)
    yield Case(0, 8, 8, None, None, causal=False)
    yield Case(0, 8, 8, 3, divided, causal=False)


@check("kernel")
def equals_attention(part: Any) -> None:
    """Output and gradients equal plain attention, for every mask, group, softcap, bias and sink."""
    ways: list[dict[str, Any]] = [
        {"kv_heads": 4},
        {"kv_heads": 2},
        {"kv_heads": 2, "softcap": 1.5, "bias": "shared", "sunk": True},
        {"kv_heads": 1, "bias": "row"},
        {"kv_heads": 2, "sunk": True},
        {"kv_heads": 2, "bias": "shared"},
    ]
    for _, kernel in each(part):
        for case, way in itertools.product(cases(), ways):
            _compare(kernel, replace(case, **way))


@check("kernel")
@torch.no_grad()
def drops_in_training(part: Any) -> None:
    """Dropout changes the output when requested, and keeps its mean."""
    case = Case(0, 8, 8, None, None)
    q, k = _inputs(case)[:2]
    v = torch.ones(ROWS, HEADS, 8, HEAD_DIM)
    for _, kernel in each(part):
        torch.manual_seed(0)
        given = (q.float(), k.float(), v, case.mask())
        plain: dict[str, Any] = {"scale": 0.4, "softcap": None, "bias": None, "sinks": None, "dropout": 0.5}
        drawn = torch.stack([kernel(*given, **plain) for _ in range(200)])
        assert float(drawn.std()) > 0.1, "dropout drops nothing"
        assert abs(float(drawn.mean()) - 1.0) < 0.05, f"dropout changes the mean from 1 to {float(drawn.mean()):.3f}"


@check("kernel")
@torch.no_grad()
def keeps_bfloat16(part: Any) -> None:
    """bfloat16 inputs give bfloat16 outputs, close to those of float64."""
    for sunk in (False, True):
        case = Case(0, 8, 8, 3, None, bias="shared", sunk=sunk)
        q, k, v, bias, sinks = _inputs(case)
        expected = written_out(case, q, k, v, bias, sinks, 0.4)
        for _, kernel in each(part):
            small = [t.to(torch.bfloat16) for t in (q, k, v)]
            sink = None if sinks is None else sinks.to(torch.bfloat16)
            got = kernel(*small, case.mask(), scale=0.4, softcap=None, bias=bias, sinks=sink, dropout=0.0)
            assert got.dtype == torch.bfloat16, f"bfloat16 became {got.dtype}"
            agree(got, expected, "attention in bfloat16", tolerance=0.05)


def written_out(
    case: Case, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sinks: Tensor | None, scale: float
) -> Tensor:
    """Attention as the contract of kernels defines it, one head at a time: (B, H, T, K)."""
    rows = []
    for row in range(q.shape[0]):
        seen = torch.tensor([[case.sees(row, case.start + t, key) for key in case.places] for t in range(case.length)])
        heads = []
        for h in range(q.shape[1]):
            g = h // (q.shape[1] // k.shape[1])
            scores = scale * q[row, h] @ k[row, g].T  # (T, S)
            if case.softcap is not None:
                scores = case.softcap * torch.tanh(scores / case.softcap)
            if bias is not None:
                scores = scores + (bias[h] if bias.ndim == 3 else bias[row, h])
            weights = scores.masked_fill(~seen, float("-inf")).exp()
            spent = 0.0 if sinks is None else sinks[h].exp()  # probability of the sink, which adds no value
            heads.append(weights / (weights.sum(-1, keepdim=True) + spent) @ v[row, g])
        rows.append(torch.stack(heads))
    return torch.stack(rows)


def _compare(kernel: Kernel, case: Case) -> None:
    q, k, v, bias, sinks = _inputs(case)
    inputs = [t.requires_grad_() for t in (q, k, v, sinks) if t is not None]
    expected = written_out(case, q, k, v, bias, sinks, 0.7)
    mask = case.mask()
    given = None if bias is None else _clouded(bias, mask)
    got = kernel(q, k, v, mask, scale=0.7, softcap=case.softcap, bias=given, sinks=sinks, dropout=0.0)
    agree(got, expected, f"attention in {case}", tolerance=1e-4)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(3), dtype=got.dtype)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), inputs) for y in (got, expected))
    for name, mine, other in zip(("q", "k", "v", "sinks"), ours, theirs, strict=False):
        off = float((mine - other).abs().max())
        assert off <= 1e-4 * max(1.0, float(other.abs().max())), f"gradient of {name} off by {off:.3g} in {case}"


def _clouded(bias: Tensor, mask: Mask) -> Tensor:
    """The bias with NaN at masked keys: a function of distances may be undefined for later keys."""
    rows = bias.ndim == 3 and mask.dense.ndim == 4  # one bias for rows with different masks
    return bias if rows else bias.masked_fill(~mask.dense, float("nan"))


def _inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """q, k, v, bias and sinks."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    keys = len(case.places)
    q = draw(ROWS, HEADS, case.length, HEAD_DIM)
    k, v = draw(ROWS, case.kv_heads, keys, HEAD_DIM), draw(ROWS, case.kv_heads, keys, HEAD_DIM)
    rows = {"none": (), "shared": (HEADS,), "row": (ROWS, HEADS)}[case.bias]
    bias = draw(*rows, case.length, keys).float() if rows else None
    return q, k, v, bias, draw(HEADS) if case.sunk else None
