"""Weights laid out for few rows: what makes decoding on a processor as fast as memory is read.

Training multiplies thousands of rows at once, decoding one for each text, and there a matrix product waits for the
weights. They are read faster from a copy in the order in which they are needed (`layouts`). The copy is made for a
generation and forgotten when it ends (`copies`). The model's own weights stay as they are and where they are, so that
everything else goes on as before; they are used wherever the copy does not fit or is not fresh.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from operator import attrgetter, contains, getitem, is_
from threading import Lock, get_ident
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from registry.contracts import Head, ModelPart
from registry.linear import Linear, linear
from transformer_kit.generate.layouts import Packer, packable

_LOCK = Lock()
"""Held while a model is changed: what one generation laid out another leaves alone."""
_VERSION = attrgetter("_version")


class Laid:
    """Packed copies of a model's weights, for products of `rows` rows; nothing changes without a `packer`.

    They are there inside `with laid:`, and used inside `with laid.active():` alone, by this thread: whatever else runs
    the model meanwhile uses its weights. Results differ from the plain ones by rounding, of what `packer` keeps.
    """

    def __init__(self, model: nn.Module, packer: Packer | None, rows: int) -> None:
        self.model, self.packer, self.rows = model, packer, rows
        self.products: list[_Product | _Projection] = []
        self.switch = _Switch()
        self.changed: list[tuple[nn.Module, str, Any]] = []
        self.users = 0
        self.steps: RemovableHandle | None = None

    def __enter__(self) -> Self:
        """The first who enters has the copies made, the last who leaves has them forgotten."""
        with _LOCK:
            if not self.users and self.packer is not None:
                try:
                    self._lay_out(self.packer)
                except BaseException:  # such as memory that does not suffice for the copies
                    self._forget()
                    raise
            self.users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            self.users -= 1
            if not self.users:
                self._forget()

    def _forget(self) -> None:
        if self.steps is not None:
            self.steps.remove()
        for module, name, mine in self.changed:
            if module.__dict__.get(name) is mine:
                del module.__dict__[name]
        # Products know the switch and it knows them: in a circle, which would hold the copies until it is found.
        self.changed.clear()
        self.products.clear()
        self.switch.products.clear()
        self.switch = _Switch()

    @contextmanager
    def active(self) -> Iterator[None]:
        """For one pass: copies are used that are of their weights as they are now."""
        switch = self.switch
        if not switch.lock.acquire(blocking=False):  # another thread is at it, and this one uses the weights
            yield
            return
        try:
            switch.check()
            switch.thread = get_ident()
            yield
        finally:
            switch.thread = None
            switch.lock.release()

    def unwritten(self) -> bool:
        """Whether nothing was written to the weights of which there are copies."""
        return self.switch.unwritten()

    def _lay_out(self, packer: Packer) -> None:
        self.steps = register_optimizer_step_post_hook(_count_steps)
        for linears in _together(self.model):
            product = _Product(linears, packer, self.rows, self.switch)
            self.products.append(product)
            for i, layer in enumerate(linears):
                self._change(layer, "forward", partial(product, i))
        for module in self.model.modules():
            if isinstance(module, Head) and "project" not in module.__dict__:
                projection = _Projection(packer, self.rows, self.switch)
                self.products.append(projection)
                self._change(module, "project", projection)

    def _change(self, module: nn.Module, name: str, to: Any) -> None:
        module.__dict__[name] = to
        self.changed.append((module, name, to))


def _count_steps(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Count what an optimizer wrote: fused ones write without telling anybody."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch.autograd.graph.increment_version(parameters)


def _together(model: nn.Module) -> list[list[nn.Linear]]:
    """The linear layers to be packed, those that read the same features side by side, as their part says."""
    known = [m for m in model.modules() if isinstance(m, nn.Linear) and type(m) in (nn.Linear, Linear)]
    # What makes a weight just before it is used changes it behind a copy's back.
    known = [m for m in known if not m._forward_pre_hooks]
    # What is changed already belongs to another generation with this model, which will change it back.
    left = {m: None for m in known if "forward" not in m.__dict__ and packable(m.weight)}
    found = []
    for part in model.modules():
        for names in part.together if isinstance(part, ModelPart) else ():
            linears = [m for m in (getattr(part, name, None) for name in names) if m in left]
            if len({linear.weight.dtype for linear in linears}) == 1:
                found.append(linears)
                for linear in linears:
                    del left[linear]
    return [*found, *([m] for m in left)]


class _Switch:
    """Says which thread uses packed weights now, and which of them are not fresh any more."""

    def __init__(self) -> None:
        self.lock = Lock()
        """Held by the thread that uses packed weights."""
        self.thread: int | None = None
        self.stale = False
        """Whether any is."""
        self.products: list[_Product] = []
        self._attributes: list[dict[str, Any]] = []
        self._own: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._tensors: list[Tensor | None] = []
        self._counted: list[Tensor] = []
        self._versions: list[int] = []

    def watch(self, product: "_Product") -> None:
        """Have it told when its weights are not what they were when they were packed."""
        self.products.append(product)
        self.count(product.copy)
        for name, tensors in (("weight", product.copy.weights), ("bias", product.copy.biases)):
            for layer, tensor in zip(product.linears, tensors, strict=True):
                self._attributes.append(layer.__dict__)
                self._own.append(layer._parameters)
                self._names.append(name)
                self._tensors.append(tensor)

    def count(self, copy: "_Copy") -> None:
        """Notice what is written to the weights that this is a copy of."""
        for tensor, version in zip(copy.weights + copy.biases, copy.versions, strict=True):
            if tensor is not None and version is not None:
                self._counted.append(tensor)
                self._versions.append(version)

    def unwritten(self) -> bool:
        """Whether nothing was written to weights."""
        return list(map(_VERSION, self._counted)) == self._versions

    def fresh(self) -> bool:
        """Whether all weights are as they were: mostly they are, and that is to be found out fast, without Python."""
        return (
            self.unwritten()
            and all(map(is_, map(dict.get, self._own, self._names), self._tensors))
            and not any(map(contains, self._attributes, self._names))
            and all(map(is_, map(getitem, self._attributes, repeat("_parameters")), self._own))
        )

    def check(self) -> None:
        """Look at all weights, and where one has changed have each product look at its own."""
        before, self.stale = self.stale, not self.fresh()
        if self.stale or before:
            for product in self.products:
                product.stale = not product.copy.of(*product.now())


class _Copy:
    """A packed weight, and how to tell that it is not that weight any more."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor | None], packer: Packer) -> None:
        self.weights, self.biases = weights, biases
        self.versions = _versions(weights, biases)
        # One weight alone is not copied: some layouts keep what they were made of.
        joined = weights[0] if len(weights) == 1 else torch.cat([w.detach() for w in weights])
        self.multiply = packer(joined, _joined(weights, biases))

    def of(self, weights: list[Tensor], biases: list[Tensor | None]) -> bool:
        """Whether the copy is of these weights as they are now."""
        same = all(map(is_, weights, self.weights)) and all(map(is_, biases, self.biases))
        return same and _versions(weights, biases) == self.versions


class _Product:
    """Stands in for the `forward` of linear layers that read the same features: multiplies once for all of them."""

    def __init__(self, linears: list[nn.Linear], packer: Packer, rows: int, switch: _Switch) -> None:
        self.linears, self.switch = linears, switch
        self.numbers = rows * linears[0].in_features
        self.widths = [linear.out_features for linear in linears]
        self.copy = _Copy(*self.now(), packer)
        self.dtype = linears[0].weight.dtype
        self.stale = False
        """Whether the copy is not of the weights as they are now."""
        self.x: Tensor | None = None
        self.results: list[Tensor | None] = []
        switch.watch(self)

    def __call__(self, index: int, x: Tensor) -> Tensor:
        known = x is self.x
        fits = self.switch.thread == get_ident() and not self.stale and (known or _takes(x, self.numbers, self.dtype))
        if fits and not known:
            y = self.copy.multiply(x)
            self.x, self.results = x, [y] if len(self.widths) == 1 else list(y.split_with_sizes(self.widths, -1))
        result = self.results[index] if fits else None
        if result is None:
            layer = self.linears[index]
            return linear(x, layer.weight, layer.bias)
        self.results[index] = None  # given once: what asks again may have put something else into the same tensor
        return result

    def now(self) -> tuple[list[Tensor], list[Tensor | None]]:
        return [linear.weight for linear in self.linears], [linear.bias for linear in self.linears]


class _Projection:
    """Stands in for a head's `project`, whose weight is known once it is used."""

    def __init__(self, packer: Packer, rows: int, switch: _Switch) -> None:
        self.packer, self.rows, self.switch = packer, rows, switch
        self.copy: _Copy | None = None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.switch.thread != get_ident() or not packable(weight):
            return linear(x, weight, bias)
        if self.copy is None:
            with torch._C.DisableTorchFunction():  # whoever watches what a step does: this is done once
                self.copy = _Copy([weight], [bias], self.packer)
            self.switch.count(self.copy)
        fits = _takes(x, self.rows * x.shape[-1], weight.dtype) and self.copy.of([weight], [bias])
        return self.copy.multiply(x) if fits else linear(x, weight, bias)


def _takes(x: Tensor, numbers: int, dtype: torch.dtype) -> bool:
    """Whether a copy for so many numbers of this type multiplies x."""
    return x.numel() == numbers and x.dtype == dtype and not torch.is_grad_enabled()


def _joined(weights: list[Tensor], biases: list[Tensor | None]) -> Tensor | None:
    """One bias for all; None where no layer has one."""
    if all(bias is None for bias in biases):
        return None
    pairs = zip(weights, biases, strict=True)
    return torch.cat([w.new_zeros(len(w)) if b is None else b.detach() for w, b in pairs])


def _versions(weights: list[Tensor], biases: list[Tensor | None]) -> list[int | None]:
    return [_version(t) for t in (*weights, *biases)]


def _version(tensor: Tensor | None) -> int | None:
    """A number that changes with the values; None for what has no such, as inference tensors."""
    return None if tensor is None or tensor.is_inference() else tensor._version
