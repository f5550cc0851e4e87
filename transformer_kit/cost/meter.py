"""Measures one training step on the meta device: its FLOPs, and when each tensor is allocated and freed.

The meta device has no storage, so a step of any size takes milliseconds and no memory. Shapes, lifetimes and the
tensors that autograd saves are those of the real step.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import flop_registry

from transformer_kit.cost.accumulated import Accumulation
from transformer_kit.cost.dispatch import FLASH, FLASH_BACKWARD, TorchDispatchMode
from transformer_kit.cost.mixed import Mixed, autocast
from transformer_kit.cost.quick import uncompiled
from transformer_kit.cost.shapes import Shapes, listed
from transformer_kit.cost.timeline import Stretch, Timeline
from transformer_kit.model.model import Model


class Minimized(Protocol):
    """Return value of an objective."""

    def loss(self, model: Any, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `Objective.loss`."""
        ...


class Work(NamedTuple):
    """Settings of a training step."""

    objective: Minimized
    batch: int
    """Sequences of one forward pass."""
    seq: int
    """Tokens of a sequence."""
    document_mask: bool = False
    """Whether attention stays within the documents of a sequence."""
    accumulates: bool = False
    """Whether gradients of an earlier pass exist and are accumulated into."""
    optimizer_in_backward: bool = False
    """Whether a parameter's gradient is freed once it is complete."""
    mixed: torch.dtype | None = None
    """Type of matrix products with float32 weights; None keeps the type of the operands."""


def measure(model: Model, layers: Sequence[nn.Module], work: Work) -> Timeline:
    """Measure one forward and backward pass of `model` (on meta) with `layers` as its stack, gradients included."""
    stack, training = model.layers, model.training
    model.layers = nn.ModuleList(layers)
    try:
        return _step(model.train(), work)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
        model.layers = stack


def _step(model: Model, work: Work) -> Timeline:
    tokens = torch.zeros(work.batch, work.seq + 1, dtype=torch.long, device="meta")
    segments = torch.zeros_like(tokens) if work.document_mask else None
    if work.accumulates:
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    held = [tokens, *model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
    meter = _Meter(held if segments is None else [*held, segments])
    dropping = _dropped_gradients(model) if work.optimizer_in_backward else nullcontext()
    with uncompiled(), dropping, meter, _Marks(model, meter) as marks, torch_functions():
        with autocast(work.mixed):
            loss = work.objective.loss(model, tokens, segments)[0]
        loss.backward()
    return marks.timeline()


@contextmanager
def torch_functions() -> Iterator[None]:
    """Inside, torch runs the functions of a CPU on the meta device: fused attention, mixed precision."""
    with Fused(), Mixed():
        yield


@contextmanager
def _dropped_gradients(model: Model) -> Iterator[None]:
    """Inside, a gradient is freed once it is complete."""

    def drop(parameter: Tensor) -> None:
        parameter.grad = None

    handles = [p.register_post_accumulate_grad_hook(drop) for p in model.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Marks:
    """Records where each layer and the head begin and end, in the forward and in the backward pass."""

    def __init__(self, model: Model, meter: "_Meter") -> None:
        self.meter = meter
        layers = model.blocks()
        self.depth = len(layers)
        self.forward: list[_Mark] = []  # before the first layer, and after each
        self.backward: dict[int, _Mark] = {}  # when the gradient of that many layers' output exists
        self.head: _Mark | None = None
        self.head_flops = 0
        self._handles = [layers[0].register_forward_pre_hook(lambda _, given: self._enter(given[0]))]
        for layer in dict.fromkeys(layers):
            self._handles.append(layer.register_forward_hook(lambda _, given, out: self._pass(out)))
        self._handles.append(model.head.register_forward_pre_hook(lambda *_: self._begin_head()))
        self._handles.append(model.head.register_forward_hook(lambda *_: self._end_head()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def timeline(self) -> Timeline:
        """The stretches between the marks."""
        last = self.meter.now()
        before = self.head or last
        up, down = self.forward, [self.backward.get(i, last) for i in range(self.depth + 1)]
        return Timeline(
            begin=self._between(_Mark(0, 0), up[0]),
            forward=tuple(self._between(a, b) for a, b in pairwise(up)),
            norm=self._between(up[-1], before),
            head=self._between(before, down[-1]),
            backward=tuple(self._between(b, a) for a, b in pairwise(down)),
            end=self._between(down[0], last),
            forward_flops=before.flops + self.head_flops,
        )

    def _enter(self, x: Tensor) -> None:
        if not self.forward:  # the first layer may stand in several places
            self._pass(x)

    def _pass(self, x: Tensor) -> None:
        """Record that `x` flows between two layers, and when its gradient flows back."""
        place = len(self.forward)
        self.forward.append(self.meter.now())
        if x.requires_grad:
            x.register_hook(lambda _: self._return(place))
        elif place == 0:  # the second layer would free it, and no further layer has such a tensor
            self._first = x

    def _return(self, place: int) -> None:
        self.backward[place] = self.meter.now()

    def _begin_head(self) -> None:
        self._before = self.meter.now()
        self.head = self.head or self._before

    def _end_head(self) -> None:
        self.head_flops += self.meter.flops - self._before.flops

    def _between(self, a: "_Mark", b: "_Mark") -> Stretch:
        return Stretch.of(self.meter.changes[a.changes : b.changes], b.flops - a.flops)


class Fused(TorchFunctionMode):
    """Attention with torch's fused kernel wherever a CPU would run it; torch never chooses it on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and _is_fusible(*args, **kwargs):
            return _flash(*args, **kwargs)
        return func(*args, **kwargs)


def _is_fusible(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, *_: Any, **__: Any
) -> bool:
    """Whether torch's fused kernel takes these arguments on a CPU."""
    plain = attn_mask is None or (attn_mask.dim() in (2, 4) and not attn_mask.requires_grad)
    return plain and dropout_p == 0.0 and q.dim() == 4 and q.shape[-1] == v.shape[-1]


def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What torch's dispatcher does after it chose the kernel."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, float("-inf"))
    out: Tensor = FLASH(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return out


class _Mark(NamedTuple):
    """A point in a step."""

    changes: int
    """Memory changes so far."""
    flops: int


class _Meter(TorchDispatchMode):
    """Counts FLOPs by torch's formulas, and the bytes of live tensors outside `given`."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.flops = 0
        self.changes: list[int] = []
        """Bytes allocated (above 0) or freed (below 0), in order."""
        self._alive: set[int] = set()  # ids of storages; torch keeps one object for each storage while it lives
        self._given = given
        self._shapes = Shapes(_flops)
        self._accumulation = Accumulation()
        self._alive.update(id(tensor.untyped_storage()) for tensor in given)

    def now(self) -> _Mark:
        """This moment."""
        return _Mark(len(self.changes), self.flops)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._accumulation.is_in_place(func, args):
            return args[0]
        out, flops = self._shapes.run(func, args, kwargs or {})
        self.flops += flops
        for tensor in listed(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor)
        return out

    def _meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self._alive:
            self._alive.add(id(storage))
            self.changes.append(storage.nbytes())
            weakref.finalize(storage, self._leave, id(storage), storage.nbytes()).atexit = False

    def _leave(self, address: int, size: int) -> None:
        self._alive.discard(address)
        self.changes.append(-size)


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    if func._overloadpacket is FLASH:
        return _attention_flops(*args[:3])
    if func._overloadpacket is FLASH_BACKWARD:  # dQ, dK, dV and dP: four products for the forward pass's two
        return 2 * _attention_flops(*args[1:4])
    formula = flop_registry.get(func._overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))


def _attention_flops(q: Tensor, k: Tensor, v: Tensor) -> int:
    """FLOPs of scores and of their product with values; torch's formula lacks grouped-query attention before 2.12."""
    B, H, T, K = q.shape
    return 2 * B * H * T * k.shape[2] * (K + v.shape[3])
