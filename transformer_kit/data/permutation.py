"""A pseudo-random permutation without a table: a Feistel network (Luby and Rackoff 1988)."""

import hashlib

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6


class Permutation:
    """A permutation of 0, 1, ..., n - 1 that `key` determines, without memory or state.

    The Feistel network permutes a range of up to 4 n integers. An output beyond n is fed in again until it lies below n
    (cycle walking, Black and Rogaway 2002).
    """

    def __init__(self, n: int, key: str) -> None:
        assert 0 < n < 1 << 62
        self.n = n
        self._half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        seeds = hashlib.sha512(key.encode()).digest()
        self._keys = np.frombuffer(seeds, dtype="<u8")[:ROUNDS].astype(np.uint64)

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Permuted values of `index`, any shape, each in [0, n)."""
        out = self._network(index.astype(np.uint64))
        while (outside := out >= self.n).any():
            out[outside] = self._network(out[outside])
        return out.astype(np.int64)

    def _network(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return (left << self._half) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of the result depends on every bit of x. Arithmetic modulo 2^64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
