"""Which copies of its weights a generation uses: its own, for as long as it lasts, or those of `prepared`."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import torch

from transformer_kit.generate.fast import Laid
from transformer_kit.generate.layouts import Packer, eight_bits, layout_for, packable

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

PAYS = 48
"""Tokens of one text, half as many of several, below which a copy takes longer than it saves: as long as reading the
weights 20 times, half of which is the system's finding memory (an AMD EPYC with two threads)."""

_LOCK = Lock()
_READY: dict["Model", tuple[tuple[int, bool], Laid]] = {}
"""The number of texts and whether weights are rounded, and what was laid out for that."""


@contextmanager
def prepared(model: "Model", rows: int = 1, *, int8: bool = False) -> Iterator[None]:
    """Lay weights out for generations of `rows` texts, once for all that take place inside.

        with prepared(model):
            for prompt in prompts:
                model.generate([prompt], max_new_tokens=20)

    Otherwise each generation makes a copy of its own, if it is long enough. On a processor a copy takes as much memory
    as the weights, until the end. `int8` is for generations with `int8`. Generations that are not as is said here use
    the weights themselves meanwhile, and so do all but one of several threads. Weights may change, and their copies
    are not used from then on; modules and hooks may not, and the model is not to be copied or pickled as a whole.
    Raises ValueError where the model is prepared already or generates, or where `int8` is not possible.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    laid = Laid(model, _packer(model, rows, int8), rows)
    with _LOCK:
        if model in _READY:
            raise ValueError("the model is prepared already; leave that before you prepare it anew")
        _READY[model] = (rows, int8), laid
    try:
        with laid:
            if laid.packer is not None and not laid.products:
                raise ValueError("nothing can be prepared while the model generates; end that first")
            yield
    finally:
        del _READY[model]


def laid_for(model: "Model", rows: int, tokens: int, int8: bool) -> Laid:
    """For a generation of so many texts and tokens, to be entered for as long as it lasts."""
    packer, ready = _packer(model, rows, int8), _READY.get(model)
    if ready is not None and ready[0] == (rows, int8):
        return ready[1]
    pays = int8 or tokens * min(rows, 2) >= PAYS
    return Laid(model, packer if pays else None, rows)


def _packer(model: "Model", rows: int, int8: bool) -> Packer | None:
    return _eight_bits(model, rows) if int8 else layout_for(model.embedding.weight, rows)


def _eight_bits(model: "Model", rows: int) -> Packer:
    weight = model.embedding.weight
    reasons = (
        (rows != 1, f"one text at a time is written so, got {rows}"),
        (not weight.is_cpu, f"weights of 8 bits are for a processor, the model is on {weight.device}"),
        (not packable(weight), f"the model must be in float32, or bfloat16 where that is fast, got {weight.dtype}"),
        (torch.is_autocast_enabled("cpu"), "autocast chooses types of its own"),
    )
    for applies, why in reasons:
        if applies:
            raise ValueError(f"int8: {why}; leave int8 out")
    return eight_bits
