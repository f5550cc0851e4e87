"""Makes counting on the meta device start fast. It changes no number; without it, counting starts later.

Shapes on the meta device come from torch's Python decompositions. These import the compiler (`torch._dynamo`, more
than a second) only to disable it for themselves. Counting compiles nothing.

`torch._dynamo` is private, and `torch.compiler`, which is public, imports it. Tried on torch 2.13; without this file
counting takes one second more.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, `disable` of the compiler costs nothing; any other use of the compiler imports it."""
    if COMPILER in sys.modules:
        yield
        return
    asleep = _Asleep()
    asleep.lie_down()
    try:
        yield
    finally:
        asleep.get_up()


class _Asleep(ModuleType):
    """Stands in for the compiler. Has `disable`; any other attribute imports the real one."""

    def __init__(self) -> None:
        super().__init__(COMPILER)
        self.__spec__ = ModuleSpec(COMPILER, None)
        self.disabled: list[Callable[..., Any]] = []

    def disable(self, fn: Callable[..., Any], recursive: bool = True, *, wrapping: bool = True) -> Any:
        """Return `fn` and remember it, to disable it for the real compiler after its import."""
        self.disabled.append(fn)
        return fn

    def lie_down(self) -> None:
        sys.modules[COMPILER] = self
        torch._dynamo = self

    def get_up(self) -> None:
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
            del torch._dynamo
        for fn in self.disabled:
            fn.__dict__.pop("__dynamo_disable", None)
        self.disabled.clear()

    def __getattr__(self, name: str) -> Any:
        self.get_up()
        import torch._dynamo as awake

        return getattr(awake, name)
