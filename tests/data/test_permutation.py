"""The order of training visits everything once, and not in order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transformer_kit.data.permutation import Permutation


@given(st.integers(1, 3000), st.text(max_size=5))
def test_is_a_bijection(n: int, key: str) -> None:
    assert sorted(Permutation(n, key)(np.arange(n))) == list(range(n))


@given(st.integers(1, 1 << 61), st.data())
def test_stays_inside_and_does_not_depend_on_the_company(n: int, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    order = Permutation(n, "key")
    together = order(np.array(index, dtype=np.int64))
    assert ((together >= 0) & (together < n)).all()
    assert together.tolist() == [int(order(np.array([i], dtype=np.int64))[0]) for i in index]


def test_keys_give_unlike_orders() -> None:
    a, b, plain = Permutation(1000, "0")(np.arange(1000)), Permutation(1000, "1")(np.arange(1000)), np.arange(1000)
    assert (a == b).sum() < 20
    assert (a == plain).sum() < 20
    assert abs(np.corrcoef(a, plain)[0, 1]) < 0.15
    assert len(set(np.diff(a).tolist())) > 600  # neighbors go to unrelated places
