"""Operations on layouts: each undoes itself, bit for bit, and puts rows where its description says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformer_kit.convert.layout import ACROSS, OPERATIONS, Op, inward, outward

SIZES = st.integers(1, 4)
Case = tuple[list[Tensor], list[Op], list[int]]


def numbered(*shape: int) -> Tensor:
    """A tensor in which no two values are equal."""
    return torch.arange(torch.Size(shape).numel()).view(shape)


@st.composite
def cases(draw: st.DrawFn, name: str) -> Case:
    """Tensors of theirs, the operation, and the rows of ours that it makes."""
    n, width, count = draw(SIZES), draw(SIZES), draw(SIZES)
    rows = draw(st.lists(SIZES.map(lambda r: r * n), min_size=1, max_size=4))
    if name == "split":
        return [numbered(sum(rows), width)], [{"split": n}], rows
    if name == "concat":
        return [numbered(n, width) + 100 * i for i in range(count)], [{"concat": count}], [n * count]
    if name == "stack":
        return [numbered(width) + 100 * i for i in range(n)], ["stack"], [n]
    if name == "row":
        return [numbered(1, width)], ["row"], [width]
    if name == "halves":
        return [numbered(n * 2 * count, width)], [{"halves": n}], [n * 2 * count]
    return [numbered(n, width)], ["transpose"], [width]


@pytest.mark.parametrize("name", OPERATIONS)
@given(data=st.data())
def test_out_is_in_undone(name: str, data: st.DataObject) -> None:
    theirs, ops, rows = data.draw(cases(name))
    ours = inward(theirs, ops, rows, {})
    assert [t.shape[0] for t in ours] == rows
    assert sorted(x for t in ours for x in t.flatten().tolist()) == sorted(
        x for t in theirs for x in t.flatten().tolist()
    )
    back = outward(ours, ops, rows, {})
    assert [t.tolist() for t in back] == [t.tolist() for t in theirs]


@given(data=st.data())
def test_one_after_another(data: st.DataObject) -> None:
    """As Conv1D stores queries, keys and values: beside one another, transposed."""
    (tensor,), (split,), rows = data.draw(cases("split"))
    ops = ["transpose", split]
    ours = inward([tensor.mT], ops, rows, {})
    assert [t.tolist() for t in outward(ours, ops, rows, {})] == [tensor.mT.tolist()]
    assert [t.tolist() for t in ours] == [t.tolist() for t in inward([tensor], [split], rows, {})]


PLACES: list[tuple[str, Op, list[str], list[str], dict[str, Any]]] = [
    ("side by side", {"split": 1}, ["q0 q1 k0 k1 v0 v1"], ["q0 q1", "k0 k1", "v0 v1"], {}),
    ("as NeoX and BLOOM", {"split": "n"}, ["q0 k0 v0 q1 k1 v1"], ["q0 q1", "k0 k1", "v0 v1"], {"n": 2}),
    ("as Falcon", {"split": "$kv"}, ["q0 q1 k0 v0 q2 q3 k1 v1"], ["q0 q1 q2 q3", "k0 k1", "v0 v1"], {"kv": 2}),
    ("in turn, as gpt-oss", {"split": "each"}, ["g0 u0 g1 u1"], ["g0 g1", "u0 u1"], {}),
    ("concat", {"concat": 2}, ["g0 g1", "u0 u1"], ["g0 g1 u0 u1"], {}),
    ("pairs, as Meta's Llama", {"halves": 2}, ["a0 b0 a1 b1 c0 d0 c1 d1"], ["a0 a1 b0 b1 c0 c1 d0 d1"], {}),
]


@pytest.mark.parametrize(("op", "theirs", "ours", "config"), [p[1:] for p in PLACES], ids=[p[0] for p in PLACES])
def test_where_rows_go(op: Op, theirs: list[str], ours: list[str], config: dict[str, Any]) -> None:
    """Each name is a row."""
    names = sorted({name for text in theirs for name in text.split()})
    rows = [[[float(names.index(name))] for name in text.split()] for text in theirs]
    made = inward([torch.tensor(r) for r in rows], [op], [len(text.split()) for text in ours], config)
    assert [" ".join(names[int(x)] for x in t.flatten().tolist()) for t in made] == ours


WRONG: list[tuple[Op, list[Tensor], list[int], str]] = [
    ({"split": 2}, [numbered(5, 2)], [4, 2], "5 rows are not 2 groups"),
    ({"split": 2}, [numbered(4, 2)], [3, 1], "4 rows are not 2 groups"),
    ({"split": "n_head"}, [numbered(4, 2)], [2, 2], "needs the key n_head: must be a whole number"),
    ({"concat": 2}, [numbered(4, 2)], [4], "must be 2 tensors of one shape"),
    ({"concat": 2}, [numbered(4, 2), numbered(2, 2)], [6], "must be 2 tensors of one shape"),
    ({"halves": 2}, [numbered(6, 2)], [6], "6 rows are not 2 heads of pairs"),
]


@pytest.mark.parametrize(("op", "theirs", "rows", "message"), WRONG)
def test_what_does_not_fit(op: Op, theirs: list[Tensor], rows: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inward(theirs, [op], rows, {})


def test_every_operation_is_explained() -> None:
    page = Path(__file__).parents[2] / "docs" / "explanation" / "layouts-are-data.md"
    text = page.read_text("utf-8")
    assert [name for name in (*OPERATIONS, *ACROSS) if f"`{name}`" not in text and f"`{{{name}: " not in text] == []
