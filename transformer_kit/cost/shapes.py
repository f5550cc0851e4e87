"""Caches the output shapes of functions on the meta device.

torch computes shapes there slowly, and a mixture of experts asks for the same shapes with each expert.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Shapes:
    """Caches output shapes of functions, and their FLOPs."""

    def __init__(self, flops: Callable[[Any, Any, Any, Any], int]) -> None:
        """`flops` counts FLOPs from the function, its arguments, its keyword arguments and its result."""
        self._flops = flops
        self._known: dict[Any, _Known] = {}
        self._views: set[Any] = set()  # functions that return an argument or a view of it

    def run(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, int]:
        """The result of `func`, and its FLOPs."""
        key = None if func in self._views else _key((func, args, kwargs))
        if key in self._known:
            return self._known[key].again(), self._known[key].flops
        out = func(*args, **kwargs)
        flops = self._flops(func, args, kwargs, out)
        known = None if key is None else _Known.of(out, [*args, *kwargs.values()], flops)
        if known is not None:
            self._known[key] = known
        elif key is not None:
            self._views.add(func)
        return out, flops


class _Known(NamedTuple):
    """Output of a function for arguments of these shapes."""

    outputs: list[tuple[Any, ...]]
    """Shape, strides and type of each tensor."""
    made: type[list[Any]] | type[tuple[Any, ...]] | None
    """Type of the container of outputs; None for a single tensor."""
    flops: int

    @classmethod
    def of(cls, out: Any, given: list[Any], flops: int) -> "_Known | None":
        """None where a function returns anything but new tensors, such as a view of an argument."""
        outputs = listed(out)
        if not outputs or not all(isinstance(t, Tensor) and t.is_meta for t in outputs):
            return None
        own = {id(t.untyped_storage()) for t in outputs}
        theirs = {id(t.untyped_storage()) for value in given for t in listed(value) if isinstance(t, Tensor)}
        known = cls([(t.shape, t.stride(), t.dtype) for t in outputs], None if out is outputs[0] else type(out), flops)
        sizes = [t.untyped_storage().nbytes() for t in listed(known.again())]
        plain = sizes == [t.untyped_storage().nbytes() for t in outputs]
        return known if plain and len(own) == len(outputs) and not own & theirs else None

    def again(self) -> Any:
        """New tensors of these shapes."""
        outputs = [torch.empty_strided(shape, strides, dtype=of, device="meta") for shape, strides, of in self.outputs]
        return outputs[0] if self.made is None else self.made(outputs)


def listed(value: Any) -> Any:
    """All values in the arguments or the result of a function."""
    return value if isinstance(value, (tuple, list)) else (value,)


def _key(value: Any) -> Any:
    """Equal for arguments that torch cannot distinguish on the meta device; None for values or unhashable ones."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype) if value.is_meta else None
    if isinstance(value, (tuple, list)):
        keys = tuple(_key(v) for v in value)
        return None if None in keys else keys
    if isinstance(value, dict):
        return _key([*value, *value.values()])
    return (type(value), value) if value.__hash__ is not None else None
