"""Random numbers by purpose: each consumer has a seed of its own, which depends on the run's seed and its purpose.

    generator(seed, "layers.0.ffn.down")        the weights of that name
    with scope(seed, "dropout", step, batch)    torch, numpy and random inside; afterwards they are as before

No consumer can change another one's numbers, whatever runs between them and however often.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived(seed: int, *purpose: str | int) -> int:
    """The seed, in [0, 2^63), of the consumer that `purpose` names."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """The generator, on the CPU, of the consumer that `purpose` names."""
    return torch.Generator("cpu").manual_seed(derived(seed, *purpose))


def reseed(seed: int, *purpose: str | int) -> None:
    """Seed the global generators of torch, on all devices, of numpy and of `random` for the consumer."""
    own = derived(seed, *purpose)
    torch.manual_seed(own)
    random.seed(own)
    np.random.seed(own % 2**32)


@contextmanager
def scope(seed: int, *purpose: str | int) -> Iterator[None]:
    """Inside, the global generators are seeded for the consumer; afterwards they are as before."""
    plain, arrays = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() and torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            reseed(seed, *purpose)
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
