"""Chunked cross-entropy: the loss of a head's logits, computed in chunks of tokens to save memory.

With a large vocabulary, logits are the largest tensor of a training step: 4 B T V bytes, three times over with
log-probabilities and gradient. The gradient of a chunk is computed right after its logits, which are then freed. No
product is computed twice (Hsu et al. 2024, Liger Kernel, arXiv:2410.10989).

`torch.nn.functional.linear_cross_entropy` (torch 2.13) computes the same for linear heads. It is not used: on a CPU it
takes 1.2 times as long, it ignores autocast, and neither FLOP counters nor memory counters see inside.

Letters: N tokens, D d_model, V vocab.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from registry.contracts import Head
from transformer_kit.transform.onednn_linear import linear, takes

IGNORE = -100
"""Target that the loss ignores."""
CHUNK = 2**24
"""Logits of a chunk, 64 MiB in float32, unless that is fewer than `ROWS` tokens."""
ROWS = 512
"""Least number of tokens in a chunk: fewer make products slower (measured on two cores: 5 % at 256)."""
CHUNKS = 8
"""Largest number of chunks: each adds to the gradient of the whole table."""
SLAB = 2**11
"""Rows of a weight's gradient computed at once where torch's `addmm` cannot accumulate into it: for another type, or
with oneDNN."""


def chunk_size(vocab: int, tokens: int) -> int:
    """Tokens of a chunk."""
    return max(ROWS, CHUNK // vocab, -(-tokens // CHUNKS))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -ln p(target) over targets other than -100, 0 without any: logits (B, T, V), targets (B, T) -> ()."""
    return _sum(logits.flatten(0, 1), targets.flatten()) / _count(targets)


def chunked_cross_entropy(head: Head, x: Tensor, table: Tensor, targets: Tensor, size: int) -> Tensor:
    """`cross_entropy` of the logits of `head`, at most `size` tokens at a time: x (B, T, D), table (V, D) -> ().

    Its gradient can be taken once, and has no second derivative.
    """
    return _chunked_sum(head, x.flatten(0, 1), table, targets.flatten(), size) / _count(targets)


def _count(targets: Tensor) -> Tensor:
    return (targets != IGNORE).sum().clamp(min=1)


def _sum(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="sum")


def _chunked_sum(head: Head, x: Tensor, table: Tensor, targets: Tensor, size: int) -> Tensor:
    """x (N, D), targets (N,) -> ()."""
    if torch.compiler.is_compiling():  # a compiler fuses the passes over the logits
        return _sum(head(x[None], table)[0], targets)
    weights = [w for w in (table, *head.parameters()) if w.requires_grad]
    if not torch.is_grad_enabled() or not (weights or x.requires_grad):
        return torch.stack([_sum(head(x[i][None], table)[0], targets[i]) for i in _chunks(len(x), size)]).sum()
    total: Tensor = _Chunked.apply(head, table, targets, size, x, *weights)
    return total


def _chunks(tokens: int, size: int) -> Iterator[slice]:
    """Bounds of the chunks, nearly equal in size, since a short last chunk makes a slow product."""
    size = -(-tokens // -(-tokens // size))
    return (slice(begin, begin + size) for begin in range(0, tokens, size))


class _Chunked(torch.autograd.Function):
    """The sum of losses, with gradients computed at once: later operators only scale them."""

    @staticmethod
    def forward(ctx: Any, head: Head, table: Tensor, targets: Tensor, size: int, x: Tensor, *weights: Tensor) -> Tensor:
        total, sums = torch.zeros((), device=x.device), _Gradients(head, table, x, weights)
        with _casts_kept(x):
            for rows in _chunks(len(x), size):
                total += sums.add(rows, targets[rows])
        ctx.gradients = [sums.found.get(t) for t in (x, *weights)]
        return total

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("gradients of the loss were taken already, and are kept once; compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None
        factor = factors[0]
        if factor.device.type != "cpu" or factor != 1:  # elsewhere this comparison would synchronize with the device
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(factor)
        return None, None, None, None, *gradients


def _casts_kept(x: Tensor) -> torch.autocast:
    """A context in which autocast casts each weight once, not once for each chunk."""
    kind = "cpu" if x.is_meta else x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if on else None
    return torch.autocast(kind if on else "cpu", dtype=dtype, enabled=on, cache_enabled=True)


class _Gradients:
    """Gradients of the loss for the features x (N, D) and for `weights`, accumulated chunk by chunk."""

    def __init__(self, head: Head, table: Tensor, x: Tensor, weights: tuple[Tensor, ...]) -> None:
        self.head, self.table, self.x, self.weights = head, table, x, weights
        self.found: dict[Tensor, Tensor] = {x: torch.empty_like(x)} if x.requires_grad else {}
        self.linear = head.linear(table)

    def add(self, rows: slice, targets: Tensor) -> Tensor:
        """Loss of some rows; accumulates their gradients, in closed form for a linear head, else with autograd."""
        if self.linear is None:
            return self._by_autograd(rows, targets)
        return self._by_formula(*self.linear, rows, targets)

    def _by_formula(self, weight: Tensor, bias: Tensor | None, rows: slice, targets: Tensor) -> Tensor:
        x = self.x[rows].detach()
        logits = self.head(x[None], self.table)[0]
        loss, slope = _loss_and_slope(logits, targets, in_place=True)
        slope = slope.type_as(logits)
        if self.x.requires_grad:
            self.found[self.x][rows] = _product(slope, weight)
        if weight.requires_grad:
            self._add_product(weight, slope.t(), x.to(slope.dtype))
        if bias is not None and bias.requires_grad:
            self._add(bias, slope.sum(0, dtype=torch.float32).type_as(bias))
        return loss

    def _by_autograd(self, rows: slice, targets: Tensor) -> Tensor:
        x = self.x[rows].detach().requires_grad_(self.x.requires_grad)
        with torch.enable_grad():
            table = self.table.view_as(self.table)  # hooks on the head then see no nested backward pass
            logits = self.head(x[None], table)[0]
        loss, slope = _loss_and_slope(logits.detach(), targets, in_place=False)
        leaves = [x, *self.weights] if x.requires_grad else [*self.weights]
        gradients = torch.autograd.grad(logits, leaves, slope.type_as(logits), allow_unused=True)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None and leaf is x:
                self.found[self.x][rows] = gradient
            elif gradient is not None:
                self._add(leaf, gradient)
        return loss

    def _add(self, weight: Tensor, gradient: Tensor) -> None:
        if weight in self.found:
            self.found[weight] += gradient
        else:
            self.found[weight] = gradient.clone(memory_format=torch.contiguous_format)  # other code may share it

    def _add_product(self, weight: Tensor, a: Tensor, b: Tensor) -> None:
        """Add a b (V, D) to the gradient of `weight`, without another matrix of that size."""
        beta = int(weight in self.found)
        if not beta:
            self.found[weight] = torch.empty_like(weight)
        total = self.found[weight]
        if a.dtype == total.dtype and not takes(a, b.t()):
            torch.addmm(total, a, b, beta=beta, out=total)
            return
        for some, part in zip(a.split(SLAB), total.split(SLAB), strict=True):
            product = _product(some, b)
            part.copy_(product) if not beta else part.add_(product)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return linear(a, b.t()) if takes(a, b.t()) else torch.mm(a, b)


def _loss_and_slope(logits: Tensor, targets: Tensor, in_place: bool) -> tuple[Tensor, Tensor]:
    """Sum of losses for logits (n, V), and its float32 gradient, softmax minus one at the target: ((), (n, V)).

    With `in_place` the gradient may overwrite the logits.
    """
    counts = targets != IGNORE
    index = targets.masked_fill(~counts, 0)[:, None]
    exact = logits.float()
    free = (in_place or exact is not logits) and logits.device.type in ("cpu", "meta")
    slope = torch.log_softmax(exact, dim=-1, out=exact) if free else torch.log_softmax(exact, dim=-1)
    loss = -(slope.gather(1, index)[:, 0] * counts).sum()
    slope.exp_().scatter_add_(1, index, torch.full_like(slope[:, :1], -1.0))
    if targets.device.type != "cpu" or not bool(counts.all()):
        slope.mul_(counts[:, None])
    return loss, slope
