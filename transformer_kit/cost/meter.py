"""One training step on the meta device, watched: its FLOPs, and every tensor's birth and death.

The device has no storage, so a step of any size takes milliseconds and no memory; shapes, lifetimes and what autograd
keeps are those of the real step.
"""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from transformer_kit.cost.quick import uncompiled
from transformer_kit.model.model import Model

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Usage(NamedTuple):
    """What one training step takes."""

    forward: int
    """FLOPs of the forward pass; a multiplication and an addition are two."""
    train: int
    """FLOPs of the forward and the backward pass. What a fused kernel recomputes does not count."""
    activations: int
    """Bytes alive when the last norm's output reaches the head."""
    working: int
    """Bytes that the peak adds to them: logits, loss and the first gradients. Gradients of parameters do not count."""


def measure(model: Model, layers: Sequence[nn.Module], batch: int, seq: int) -> Usage:
    """The usage of `model` (on meta), were its stack `layers`, for one step of `batch` rows of `seq` tokens."""
    stack, training = model.layers, model.training
    model.layers = nn.ModuleList(layers)
    try:
        return _step(model.train(), batch, seq)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
        model.layers = stack


def _step(model: Model, batch: int, seq: int) -> Usage:
    tokens = torch.zeros(batch, seq, dtype=torch.long, device="meta")
    meter = _Meter([tokens, *model.parameters(), *model.buffers()])
    at_head: list[int] = []
    hook = model.head.register_forward_pre_hook(lambda *_: at_head.append(meter.alive))
    try:
        with uncompiled(), _Fused(), meter:
            loss = model(tokens, tokens).loss
            assert loss is not None
            forward = meter.flops
            loss.backward()
    finally:
        hook.remove()
    peak = meter.peak_without([p.grad for p in model.parameters() if p.grad is not None])
    return Usage(forward, meter.flops, at_head[0], max(peak - at_head[0], 0))


class _Fused(TorchFunctionMode):
    """Attention by torch's fused kernel wherever that would run; on the meta device torch itself never chooses it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and _is_fusible(*args, **kwargs):
            return _flash(*args, **kwargs)
        return func(*args, **kwargs)


def _is_fusible(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, *_: Any, **__: Any
) -> bool:
    """Whether torch's fused kernel takes these on a CPU."""
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
    """What torch's dispatcher does once it has chosen the kernel."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, float("-inf"))
    out: Tensor = FLASH(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return out


class _Meter(TorchDispatchMode):
    """Counts FLOPs by torch's own formulas, and the bytes of tensors alive that are not among `given`."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.flops = 0
        self.alive = 0
        self._numbers: dict[int, int] = {}  # address of a living storage -> its number
        self._changes: list[tuple[int, int]] = []  # (number of a storage, bytes taken or given back), as they happen
        self._given = given
        self._known: dict[Any, _Known] = {}
        self._views: set[Any] = set()  # functions that return what they were given, or a view of it
        for tensor in given:
            self._numbers[tensor.untyped_storage()._cdata] = -1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, flops = self._run(func, args, kwargs or {})
        self.flops += flops
        for tensor in _listed(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor)
        return out

    def peak_without(self, tensors: Sequence[Tensor]) -> int:
        """The most bytes that were ever alive at once, leaving out the storages of `tensors`."""
        left_out = {self._numbers.get(t.untyped_storage()._cdata) for t in tensors}
        alive = peak = 0
        for number, change in self._changes:
            if number not in left_out:
                alive += change
                peak = max(peak, alive)
        return peak

    def _run(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
        """What `func` returns, and its FLOPs. torch takes long to find shapes on the meta device, and a mixture asks
        for the same ones with each expert, so they are found once.
        """
        key = None if func in self._views else _key((func, args, kwargs))
        if key in self._known:
            return self._known[key].again(), self._known[key].flops
        out = func(*args, **kwargs)
        flops = _flops(func, args, kwargs, out)
        known = None if key is None else _Known.of(out, [*args, *kwargs.values()], flops)
        if known is not None:
            self._known[key] = known
        elif key is not None:
            self._views.add(func)
        return out, flops

    def _meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._numbers:
            return
        number = self._numbers[storage._cdata] = len(self._changes)
        self._change(number, storage.nbytes())
        weakref.finalize(storage, self._leave, storage._cdata, number, storage.nbytes()).atexit = False

    def _leave(self, address: int, number: int, size: int) -> None:
        self._numbers.pop(address, None)
        self._change(number, -size)

    def _change(self, number: int, size: int) -> None:
        self.alive += size
        self._changes.append((number, size))


class _Known(NamedTuple):
    """What a function returned for arguments of these shapes."""

    outputs: list[tuple[Any, ...]]
    """Shape, strides and type of each tensor."""
    made: type[list[Any]] | type[tuple[Any, ...]] | None
    """What holds them; None for one alone."""
    flops: int

    @classmethod
    def of(cls, out: Any, given: list[Any], flops: int) -> "_Known | None":
        """None where something else than new tensors is returned, such as a view of what was given."""
        outputs = _listed(out)
        if not outputs or not all(isinstance(t, Tensor) and t.is_meta for t in outputs):
            return None
        own = {t.untyped_storage()._cdata for t in outputs}
        theirs = {t.untyped_storage()._cdata for value in given for t in _listed(value) if isinstance(t, Tensor)}
        known = cls([(t.shape, t.stride(), t.dtype) for t in outputs], None if out is outputs[0] else type(out), flops)
        sizes = [t.untyped_storage().nbytes() for t in _listed(known.again())]
        plain = sizes == [t.untyped_storage().nbytes() for t in outputs]
        return known if plain and len(own) == len(outputs) and not own & theirs else None

    def again(self) -> Any:
        """The same anew."""
        outputs = [torch.empty_strided(shape, strides, dtype=of, device="meta") for shape, strides, of in self.outputs]
        return outputs[0] if self.made is None else self.made(outputs)


def _listed(value: Any) -> Any:
    return value if isinstance(value, (tuple, list)) else (value,)


def _key(value: Any) -> Any:
    """Equal for arguments that torch cannot tell apart on the meta device; None for what has values or no key."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype) if value.is_meta else None
    if isinstance(value, (tuple, list)):
        keys = tuple(_key(v) for v in value)
        return None if None in keys else keys
    if isinstance(value, dict):
        return _key([*value, *value.values()])
    return (type(value), value) if value.__hash__ is not None else None


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    if func._overloadpacket is FLASH:
        return sdpa_flop_count(args[0].shape, args[1].shape, args[2].shape)
    if func._overloadpacket is FLASH_BACKWARD:  # dQ, dK, dV and dP: four products for the forward pass's two
        return 2 * sdpa_flop_count(args[1].shape, args[2].shape, args[3].shape)
    formula = flop_registry.get(func._overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))
