"""What is done to tensors, noted call by call, to be done again without the Python between the calls.

    with Tape() as first:
        step()
    with Tape() as second:
        step()
    if second.repeats(first):
        again = second.program()
        again()  # as step()

One token of a small model is some hundred calls, and Python takes as long to find them, through modules that call
modules, checks and descriptions of masks, as a processor takes to do them. A program is the calls alone. It does what a
step does to tensors as long as nothing that Python holds depends on what is in a tensor, or on which step it is. A tape
sees values being read, and cannot be repeated then. For the rest two steps are noted and compared. What is beyond that,
such as a module that does something else at every tenth step, what it does beside, or `Tensor.set_` and seeds, of which
torch tells nobody, is for whoever writes the step to leave out.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from keyword import iskeyword
from operator import getitem, is_
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

MOVES = frozenset(("contiguous", "flatten", "float", "reshape", "to", "type_as"))
"""Functions that give back what they are given where there is nothing to do, and do nothing to it."""
DESCRIBE = frozenset(
    (
        *("__get__", "__len__", "can_cast", "dim", "element_size", "get_device", "is_complex", "is_contiguous"),
        *("is_floating_point", "is_inference", "ndimension", "nelement", "numel", "promote_types", "result_type"),
        *("size", "storage_offset", "stride"),
    )
)
"""Functions that say something of a tensor, but nothing of its values."""
SIZED_BY_VALUES = frozenset(
    (
        *("argwhere", "bincount", "masked_select", "nonzero", "one_hot", "tensor_split"),
        *("unique", "unique_consecutive", "unique_dim", "unique_dim_consecutive"),
    )
)
"""Functions that give more or fewer numbers as values say: Python then holds how many."""
ARITHMETIC = frozenset(
    (
        *("__getitem__", "__setitem__", "add", "clamp", "div", "eq", "floor_divide", "ge", "gt", "le", "lt", "maximum"),
        *("minimum", "mul", "ne", "remainder", "sub", "where"),
    )
)
"""Functions whose sizes do not depend on a whole number that is given as a tensor."""
MAKE = frozenset(("arange", "empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randn", "range", "zeros"))
"""Functions that are given no tensor to do something to, but may be given one as a size."""
PLAIN = (
    *(int, float, complex, str, type(None), type(...), slice),
    *(torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format),
)
"""Kinds of arguments in which no tensor hides."""


class Made(NamedTuple):
    """Stands for what a call of the tape gave."""

    call: int


class Kept:
    """Stands for a tensor that was there before, and is read where it is."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and other.tensor is self.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


class Call(NamedTuple):
    """A function, what it was given, with `Made` and `Kept` for tensors, and the shapes of what it gave."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: tuple[Any, ...] = ()


class Tape(TorchFunctionMode):
    """Notes what this thread does to tensors inside `with tape:`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.obstacle: str | None = None
        """Why this cannot be repeated; None where nothing is in the way."""
        self._made: dict[int, Made | tuple[Made, int]] = {}
        self._alive: list[object] = []  # or another tensor is given the id of one that was noted

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.obstacle is None and not torch.compiler.is_compiling():  # what is compiled comes from nowhere
            self._note(function, args, kwargs or {}, result)
        return result

    def repeats(self, other: "Tape") -> bool:
        """Whether both did the same to the same tensors, and nothing is in the way of doing it again."""
        return self.obstacle is None and other.obstacle is None and self.calls == other.calls

    def program(self, result: Any = None) -> "Program":
        """What was noted, to be done again, and to give what `result`, a tensor of its, has become."""
        return Program(self.calls, self._sign(result))

    def _note(self, function: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        name, given = _name(function), (*args, *kwargs.values())
        results = result if isinstance(result, (tuple, list)) else (result,)
        if not results or not all(one is None or isinstance(one, Tensor) for one in results):
            self.obstacle = None if name in DESCRIBE else f"{name} tells Python of values"
        elif not (name in MOVES and _among(result, given)):
            self.obstacle = _obstacle(function, name, args, kwargs)
            self._alive += (given, result)
            shapes = tuple(None if one is None else one.shape for one in results)
            signed = tuple(map(self._sign, args)), {key: self._sign(x) for key, x in kwargs.items()}
            made = self._add(Call(function, *signed, shapes))
            for i, one in enumerate(results):
                if one is not None and not _among(one, given):  # which is what it was, written to
                    self._made[id(one)] = made if one is result else (made, i)

    def _add(self, call: Call) -> Made:
        self.calls.append(call)
        return Made(len(self.calls) - 1)

    def _sign(self, x: Any) -> Any:
        """What stands for an argument in a call."""
        if isinstance(x, Tensor):
            made = self._made.get(id(x))
            if isinstance(made, Made) or made is None:
                return made or Kept(x)
            self._made[id(x)] = one = self._add(Call(getitem, made, {}))
            return one
        if type(x) in (list, tuple):
            return self._signed_each(x)
        if not isinstance(x, PLAIN) or (isinstance(x, slice) and _has_tensor(x)):
            self.obstacle = f"a function is given a {type(x).__name__}"
        return x

    def _signed_each(self, x: Any) -> Any:
        """A list or tuple: as it is now, where no tensor is in it, else what makes it anew."""
        signed = type(x)(map(self._sign, x))
        if any(isinstance(one, (Made, Kept)) for one in signed):
            return self._add(Call(type(x), tuple(signed), {}))
        return signed


class Program:
    """Calls as a function of its own, one line each: what it reads is bound, and its text holds nothing but numbers."""

    def __init__(self, calls: Sequence[Call], result: Any = None) -> None:
        self.bound: dict[str, Any] = {}
        """What the text names: functions, and what they are given that no call made."""
        self._names: dict[int, str] = {}
        self._held: dict[int, str] = {}  # the variable of what each call made, until it is needed no more
        self._free: list[str] = []
        self._count = 0
        last = {made.call: number for number, call in enumerate(calls) for made in _needs(call)}
        if isinstance(result, Made):
            last[result.call] = len(calls)
        lines = [self._line(number, call, last) for number, call in enumerate(calls)]
        self.text = "\n    ".join(["def program():", *lines, f"return {self._value(result)}"])
        exec(compile(self.text, "<program>", "exec"), self.bound)
        self._run = self.bound.pop("program")  # which must not hold itself, or what is bound stays until it is found

    def __call__(self) -> Any:
        return self._run()

    def _line(self, number: int, call: Call, last: dict[int, int]) -> str:
        made = self._written(call)
        needs = {need.call for need in _needs(call)}
        self._free += [self._held.pop(need) for need in needs if last[need] == number]
        if number not in last:
            return made
        self._held[number] = variable = self._free.pop() if self._free else self._new("v")
        return f"{variable} = {made}"

    def _written(self, call: Call) -> str:
        given = [self._value(x) for x in call.args]
        if call.function is getitem:
            return f"{given[0]}[{given[1]}]"
        if call.function is list:
            return f"[{', '.join(given)}]"
        if call.function is tuple:
            return f"({', '.join(given)},)"
        given += [f"{key}={self._value(x)}" for key, x in call.kwargs.items()]
        return f"{self._name(call.function)}({', '.join(given)})"

    def _value(self, x: Any) -> str:
        if isinstance(x, Made):
            return self._held[x.call]
        if x is None or type(x) in (bool, int):
            return repr(x)
        return self._name(x.tensor if isinstance(x, Kept) else x)

    def _name(self, thing: Any) -> str:
        """A name that is bound to it; things that are equal but not the same have names of their own."""
        if id(thing) not in self._names:
            self._names[id(thing)] = name = self._new("f" if callable(thing) else "c")
            self.bound[name] = thing
        return self._names[id(thing)]

    def _new(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"


def _needs(call: Call) -> Iterable[Made]:
    return (x for x in (*call.args, *call.kwargs.values()) if isinstance(x, Made))


def _name(function: Callable[..., Any]) -> str:
    named = function.overloadpacket if isinstance(function, OpOverload) else function
    return getattr(named, "__name__", type(named).__name__)


def _obstacle(function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> str | None:
    """Why this call cannot be repeated, as far as its function and its arguments' names tell."""
    if _is_sized_by_values(function, name, args, kwargs):
        return f"{name} gives as many numbers as values say"
    if _is_size(name, args, kwargs):
        return f"{name} may be given a size that is a tensor"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses types"
    return next((f"an argument is called {key}" for key in kwargs if not key.isidentifier() or iskeyword(key)), None)


def _is_sized_by_values(function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> bool:
    if isinstance(function, OpOverload):
        return torch.Tag.dynamic_output_shape in function.tags
    if name in ("__getitem__", "index"):  # what is true: as many as are
        index = args[1] if isinstance(args[1], (tuple, list)) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index)
    if name == "where":
        return len(args) + len(kwargs) == 1
    if name == "repeat_interleave":
        repeats = (*args[1:], *kwargs.values())
        return not repeats or any(isinstance(x, Tensor) for x in repeats)
    return name in SIZED_BY_VALUES


def _is_size(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a whole number is given as a tensor, of which torch may make a size that Python then holds."""
    if name in ARITHMETIC:
        return False
    given = (*(args if name in MAKE else args[1:]), *kwargs.values())
    return any(map(_is_whole, given))


def _is_whole(x: object) -> bool:
    if isinstance(x, Tensor):
        return x.dim() == 0 and not (x.is_floating_point() or x.is_complex())
    return type(x) in (list, tuple) and any(map(_is_whole, x))  # type: ignore[call-overload]


def _among(x: object, others: Iterable[object]) -> bool:
    return any(map(partial(is_, x), others))


def _has_tensor(ends: slice) -> bool:
    return any(isinstance(end, Tensor) for end in (ends.start, ends.stop, ends.step))
