"""Cross-entropy of a head's logits, some tokens at a time: all logits together are never in memory.

Logits take more memory than any other tensor of a training step when the vocabulary is large: 4 B T V bytes, three
times over with the log-probabilities and the gradient. Here the gradient of each piece is taken as soon as its logits
are there, and they are dropped. No product is computed twice (Hsu et al. 2024, Liger Kernel, arXiv:2410.10989).

Letters: N tokens, D d_model, V vocab.
"""

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from registry.contracts import Head
from transformer_kit.model.lookups import Lookups
from transformer_kit.model.summed import Sums

IGNORE = -100
"""A target that does not count."""
PIECE = 2**24
"""Logits that are in memory at once, 64 MiB in float32, unless they are of fewer tokens than `ROWS` or `FEW`."""
ROWS = 512
"""Tokens that are taken at once at least: with fewer, products are slower (measured on two cores: 5 % at 256)."""
FEW = 128
"""The same where memory matters more than time. With 128 thousand ids, head and loss then take 8 % longer (measured on
two cores with AVX-512)."""
PIECES = 8
"""Pieces that there are at most: each adds to the gradient of the whole table, of which logits get as small a part."""
STANDS_FOR: ContextVar[int] = ContextVar("stands_for", default=1)
"""How many pieces the one at hand stands for: on the meta device equal ones are run once, and count so many times."""


def rows_for(vocabulary: int, tokens: int, least: int = ROWS) -> int:
    """Tokens of a piece, which is the last or of at least `least` of them."""
    return max(least, PIECE // vocabulary, -(-tokens // PIECES))


def summed(head: Head, x: Tensor, table: Tensor | Lookups, targets: Tensor, rows: int) -> Tensor:
    """Sum of -ln p(target) over the targets that count, in float32: x (N, D), targets (N,) -> ().

    Logits of at most `rows` tokens are kept at once. Gradients of the sum can be taken once only. `table` is that of
    the embedding, or the lookups in it.
    """
    lookups, table = (table, table.read) if isinstance(table, Lookups) else (None, table)
    if torch.compiler.is_compiling():  # a compiler fuses the passes over the logits itself
        return _plain(head, x, table, targets)
    weights = [w for w in (table, *head.parameters()) if w.requires_grad]
    if not torch.is_grad_enabled() or not (weights or x.requires_grad):
        pairs = zip(x.split(rows), targets.split(rows), strict=True)
        return torch.stack([_plain(head, some, table, wanted) for some, wanted in pairs]).sum()
    total: Tensor = _Pieces.apply(head, table, targets, rows, lookups, x, *weights)
    return total


def _plain(head: Head, x: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    logits = head(x[None], table).squeeze(0).float()  # an index would make zeros in the backward pass
    return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")


class _Pieces(torch.autograd.Function):
    """The sum, whose gradients are computed with it: those of a sum need nothing from what comes after but a factor."""

    @staticmethod
    def forward(
        ctx: Any,
        head: Head,
        table: Tensor,
        targets: Tensor,
        rows: int,
        lookups: Lookups | None,
        x: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        inputs = [t for t in (x, *weights) if t.requires_grad]
        total = torch.zeros((), device=x.device)
        gradients: list[Tensor | None] = [None] * len(inputs)
        by_rows = x.requires_grad and len(x) > rows
        if by_rows:
            gradients[0] = torch.empty_like(x)
        with torch.enable_grad():
            seen = table.view_as(table)  # those who watch modules cannot watch a leaf in a pass that is not theirs
        sums = Sums(seen if w is table else w for w in weights if w.dim() == 2)
        for here in _pieces(len(x), rows, alike=x.is_meta):
            part = x[here].detach().requires_grad_(x.requires_grad)
            leaves = [part if t is x else t for t in inputs]
            loss, found = _piece(head, seen, part, targets[here], leaves, sums)
            total += loss
            _gather(gradients, found, here if by_rows else None)
            del found  # what is large would live until the next is there
        _gather(gradients, tuple(sums.gradient(seen if t is table else t) for t in inputs), None)
        if lookups is not None:
            lookups.is_read = any(t is table and g is not None for t, g in zip(inputs, gradients, strict=True))
        ctx.gradients, ctx.asked = gradients, [t.requires_grad for t in (x, *weights)]
        return total

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("gradients of the loss were taken already, and are kept once; compute the loss again")
        held, ctx.gradients = ctx.gradients, None
        factor = factors[0]
        if factor.device.type != "cpu" or factor != 1:  # elsewhere, looking would stall the device
            torch._foreach_mul_([g for g in held if g is not None], factor)
        found = iter(held)
        return (*[None] * 5, *(next(found) if asked else None for asked in ctx.asked))


def _pieces(length: int, rows: int, alike: bool) -> Iterator[slice]:
    """Where each piece lies. Where only shapes matter, those are `alike` that come after the first two, which make what
    lasts, and before the last, which may be short.
    """
    rows = -(-length // -(-length // rows))  # as even as can be: a short rest is a slow product
    pieces = [slice(begin, begin + rows) for begin in range(0, length, rows)]
    if not alike or len(pieces) < 4:
        yield from pieces
        return
    yield from pieces[:2]
    before = STANDS_FOR.set(len(pieces) - 3)
    try:
        yield pieces[2]
    finally:
        STANDS_FOR.reset(before)
    yield pieces[-1]


def _piece(
    head: Head, table: Tensor, x: Tensor, targets: Tensor, leaves: list[Tensor], sums: Sums
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The sum for some tokens x (n, D), and its gradients by `leaves`, but for those that are in `sums`."""
    with torch.enable_grad(), sums:
        logits = head(x[None], table)
    end = get_gradient_edge(logits)  # found before the gradient takes the logits' place
    loss, slope = _loss_and_slope(logits.detach()[0], targets, free=sums.made(logits))
    return loss, torch.autograd.grad([end], leaves, [slope[None]], allow_unused=True)


def _loss_and_slope(logits: Tensor, targets: Tensor, free: bool) -> tuple[Tensor, Tensor]:
    """The sum for logits (n, V), and its gradient by them, softmax minus one at the target: ((), (n, V)).

    The gradient takes the place of the logits if they are `free`, and of their copy in float32.
    """
    counts = targets != IGNORE
    index = targets.masked_fill(~counts, 0)[:, None]
    exact = logits.float()
    here = logits.device.type in ("cpu", "meta") and (free or exact is not logits)
    slope = torch.log_softmax(exact, dim=-1, out=exact) if here else torch.log_softmax(exact, dim=-1)
    loss = -(slope.gather(1, index)[:, 0] * counts).sum()
    slope.exp_().scatter_add_(1, index, torch.full_like(slope[:, :1], -1.0))
    if targets.device.type != "cpu" or not bool(counts.all()):
        slope.mul_(counts[:, None])
    return loss, logits.copy_(slope) if free else slope.type_as(logits)


def _gather(gradients: list[Tensor | None], found: tuple[Tensor | None, ...], rows: slice | None) -> None:
    """Add a piece's gradients to those so far; the first is that of its own `rows`, if there are such."""
    for i, new in enumerate(found):
        old = gradients[i]
        if i == 0 and rows is not None:
            assert old is not None
            assert new is not None
            old[rows] = new
        elif old is None:
            gradients[i] = _own(new, gradients)
        elif new is not None:
            old += new


def _own(new: Tensor | None, others: list[Tensor | None]) -> Tensor | None:
    """`new` where it can be added to, and nothing is in the same memory; else a copy. Autograd gives the gradient of a
    sum to both terms as it is.
    """
    if new is None:
        return None
    place = new.untyped_storage()._cdata
    shared = any(other is not None and other.untyped_storage()._cdata == place for other in others)
    return new.clone(memory_format=torch.contiguous_format) if shared or not new.is_contiguous() else new
