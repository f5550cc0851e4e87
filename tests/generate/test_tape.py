"""What a tape notes, a program does again; what cannot be done again is said."""

import ast
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformer_kit.generate.tape import SIZED_BY_VALUES, Tape

Operation = Callable[[list[Tensor]], Any]
IDS = torch.tensor([1, 2, 2, 0])


def _set(x: Tensor, y: Tensor) -> None:
    x[1:, :2] = y[0, 0]


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda x, y: x + y,
    "scalar": lambda x, _: 2 - x * 0.5,
    "same": lambda x, _: x.float().contiguous(),
    "turned": lambda x, _: x.mT,
    "list": lambda x, y: torch.cat([x, y, x], dim=1)[:, 2:5],
    "several": lambda x, _: x.split([1, 2])[1].repeat(2, 1)[:3],
    "pair": lambda x, _: x.max(dim=0, keepdim=True).values.repeat(3, 1),
    "index": lambda x, _: x[torch.tensor([2, 0, 1])],
    "tensors in a tuple": lambda x, y: x[y.argmax(0), :],
    "keywords": lambda x, y: torch.addcmul(input=x, tensor1=y, tensor2=x.tanh(), value=0.5),
    "attention": lambda x, y: F.scaled_dot_product_attention(x[None], y[None], x[None], attn_mask=(y > 0)[None])[0],
    "written to": lambda x, y: x.clone().mul_(y),
    "set": lambda x, y: _set(x, y),
    "out": lambda x, y: torch.add(x, y, out=x.clone()),
    "copied": lambda x, y: x.copy_(y.clone()),
    "module's": lambda x, y: F.layer_norm(x, (3,), weight=y[0]),
    "an operator of torch's": lambda x, y: torch.ops.aten.sub.Tensor(x, y),
    "made": lambda x, _: x + torch.arange(3, device=x.device),
    "not finite": lambda x, _: x.masked_fill(x > 1, float("-inf")).exp(),
}


@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9)), min_size=1),
    seed=st.integers(0, 99),
)
def test_a_program_does_what_was_done(steps: list[tuple[str, int, int]], seed: int) -> None:
    """Whatever was done, in whatever order, to tensors that were there before and to those made on the way."""
    draw = torch.Generator().manual_seed(seed)
    kept = [torch.randn(3, 3, generator=draw) for _ in range(2)]

    def step() -> None:
        known = list(kept)
        for name, i, j in steps:
            made = OPERATIONS[name](known[i % len(known)], known[j % len(known)])
            known += [made] if isinstance(made, Tensor) else []
        kept[0].copy_(known[-1].clamp(-3, 3))

    tapes = [Tape(), Tape()]
    for tape in tapes:
        with tape:
            step()
    assert tapes[1].obstacle is None
    assert tapes[1].repeats(tapes[0])
    before = [x.clone() for x in kept]
    step()
    expected = [x.clone() for x in kept]
    for x, y in zip(kept, before, strict=True):
        x.copy_(y)
    tapes[1].program()()
    for x, y in zip(kept, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


READING: list[Callable[[], Any]] = [
    lambda: IDS[0].item(),
    lambda: bool(IDS[0] == 1),
    lambda: int(IDS[0]),
    lambda: float(IDS[0]),
    lambda: IDS.tolist(),
    lambda: IDS.numpy(),
    lambda: np.asarray(IDS),
    lambda: torch.equal(IDS, IDS),
    lambda: 1 in IDS,
    lambda: range(IDS[0]),
    lambda: f"{IDS}",
    lambda: IDS.data_ptr(),
    lambda: IDS[: IDS[0]],
    lambda: IDS[IDS > 1],
    lambda: torch.ops.aten.index(IDS, [IDS > 1]),
    lambda: IDS.nonzero(),
    lambda: torch.ops.aten.nonzero.default(IDS),
    lambda: torch.argwhere(IDS),
    lambda: torch.where(IDS > 1),
    lambda: IDS.unique(),
    lambda: torch.unique(IDS, dim=0),
    lambda: IDS.unique_consecutive(),
    lambda: IDS.bincount(),
    lambda: IDS.repeat_interleave(IDS),
    lambda: torch.repeat_interleave(IDS),
    lambda: IDS.masked_select(IDS > 1),
    lambda: torch.tensor_split(IDS, IDS[:1]),
    lambda: F.one_hot(IDS),
]


@pytest.mark.parametrize("read", READING)
def test_what_tells_python_of_values_is_in_the_way(read: Callable[[], Any]) -> None:
    with Tape() as tape:
        read()
    assert tape.obstacle
    assert not tape.repeats(tape)


def test_all_that_torch_says_to_be_sized_by_values_is_known() -> None:
    seen_otherwise = {"index", "repeat_interleave", "_unique", "_unique2"}  # of which the last two are `unique` inside
    packets = [getattr(torch.ops.aten, name) for name in dir(torch.ops.aten)]
    sized = {
        packet.__name__
        for packet in packets
        if hasattr(packet, "overloads")
        and any(torch.Tag.dynamic_output_shape in getattr(packet, one).tags for one in packet.overloads())
    }
    assert {"nonzero", "index"} < sized
    assert sized <= SIZED_BY_VALUES | seen_otherwise


COUNT = torch.tensor(2)
SIZED: list[Callable[[], Any]] = [
    lambda: torch.arange(COUNT),
    lambda: torch.zeros(COUNT, 2),
    lambda: torch.full((COUNT, 2), 1),
    lambda: torch.linspace(0, 1, steps=COUNT),
    lambda: IDS.narrow(0, 0, COUNT),
    lambda: IDS.expand(COUNT, 4),
    lambda: IDS.repeat((COUNT,)),
    lambda: IDS.topk(COUNT),
    lambda: IDS.view(COUNT, 2),
    lambda: IDS.new_ones(COUNT),
]


@pytest.mark.parametrize("size", SIZED)
def test_a_tensor_that_is_given_as_a_size_is_in_the_way(size: Callable[[], Any]) -> None:
    with Tape() as tape:
        size()
    assert tape.obstacle


def test_a_generator_is_in_the_way() -> None:
    with Tape() as tape:
        torch.rand(3, generator=torch.Generator().manual_seed(1))
    assert tape.obstacle == "a function is given a Generator"


def test_a_list_that_changes_is_noticed() -> None:
    sizes, tapes = [1, 4], [Tape(), Tape()]
    for tape in tapes:
        with tape:
            IDS.view(sizes)
        sizes[:] = [2, 2]
    assert not tapes[1].repeats(tapes[0])


def test_dropout_in_place_is_noted() -> None:
    x = torch.ones(4)
    with Tape() as tape:
        F.dropout(x, 1.0, True, inplace=True)
    x.fill_(1)
    tape.program()()
    assert x.tolist() == [0] * 4


def test_nothing_is_a_program_too() -> None:
    assert Tape().program()() is None


def test_what_tells_of_sizes_is_not_in_the_way() -> None:
    with Tape() as tape:
        IDS.view(IDS.shape[0] // 2, -1).to(torch.promote_types(IDS.dtype, torch.float32)).expand(IDS.dim() + 1, 2, 2)
        len(IDS)
        IDS.numel()
        IDS.repeat_interleave(2)
        torch.where(IDS > 1, IDS, 0)
    assert tape.obstacle is None


def test_a_number_that_changes_from_step_to_step_is_noticed() -> None:
    tapes = [Tape(), Tape()]
    for number, tape in enumerate(tapes):
        with tape:
            IDS + number
    assert not tapes[1].repeats(tapes[0])


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return slopes[0] * 2


@pytest.mark.parametrize("unseen", [_Twice.apply, lambda x: torch.frombuffer(bytearray(16), dtype=torch.float32) + x])
def test_a_tensor_that_comes_from_nowhere_is_noticed(unseen: Callable[[Tensor], Tensor]) -> None:
    x, tapes = torch.ones(4), [Tape(), Tape()]
    for tape in tapes:
        with tape:
            unseen(x) + 1
    assert tapes[0].obstacle or not tapes[1].repeats(tapes[0])


def _unheard(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
    """A compiler whose code no mode of torch's sees, as that of kernels."""

    def run(*given: Tensor) -> Any:
        with torch._C.DisableTorchFunction():
            return graph(*given)

    return run


def test_what_is_compiled_comes_from_nowhere() -> None:
    """And the compiler does not write a tape's own work into what it makes."""
    double = torch.compile(lambda x: x * 2 + 1, backend=_unheard, fullgraph=True)
    x, tapes = torch.ones(4), [Tape(), Tape()]
    for tape in tapes:
        with tape:
            double(x).add(1)
    assert len(tapes[0].calls) == 1
    assert not tapes[1].repeats(tapes[0])


def test_autocast_is_in_the_way() -> None:
    with Tape() as tape, torch.autocast("cpu"):
        IDS.float() @ IDS.float()
    assert tape.obstacle == "autocast chooses types"


def test_a_program_lets_go_of_what_it_makes_and_of_what_it_read() -> None:
    """At once, not when a circle is found."""
    kept, made = torch.ones(3), list[weakref.ref[Tensor]]()
    with Tape() as tape:
        kept.add_(kept.exp().sin().cos())
    program = tape.program()
    (name,) = (name for name, thing in program.bound.items() if thing is Tensor.sin)

    def noting(x: Tensor) -> Tensor:
        made.append(weakref.ref(x))
        return x.sin()

    program.bound[name] = noting
    gc.disable()
    try:
        program()
        reader = weakref.ref(kept)
        del kept, tape, program
        assert [one() for one in made] == [None]
        assert reader() is None
    finally:
        gc.enable()


def test_nothing_that_was_given_becomes_text_that_python_reads() -> None:
    with Tape() as tape:
        torch.einsum("ij->ji", torch.ones(2, 3)).add(0.5, alpha=2)[:, None].sum(dim=[-1], keepdim=True)
    constants = [node.value for node in ast.walk(ast.parse(tape.program().text)) if isinstance(node, ast.Constant)]
    assert constants == [None, 2, 3, 2, True]


def test_a_name_that_python_does_not_take_is_in_the_way() -> None:
    with Tape() as tape:
        torch.ones(3).random_(**{"from": 0, "to": 5})
    assert tape.obstacle == "an argument is called from"
