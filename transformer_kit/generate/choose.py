"""Chooses the next token: samplers narrow the logits, then each row samples with its own random numbers."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Protocol

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from registry.contracts import Sampler, SamplerSlot
from registry.options import AsTuple, Options

_SAMPLERS: TypeAdapter[tuple[Options, ...]] = TypeAdapter(Annotated[tuple[SamplerSlot, ...], AsTuple])


class Narrows(Protocol):
    """Anything that maps logits (B, V) to logits (B, V), as samplers do."""

    def apply(self, logits: Tensor) -> Tensor: ...


def built(samplers: Sequence[object]) -> list[Narrows]:
    """Build samplers from options or YAML forms (`"greedy"`, `{"type": "top_k", "k": 40}`); built ones stay.

    Raises ValueError with the faulty sampler and its fault.
    """
    if isinstance(samplers, (str, dict, Options, Sampler)):
        raise ValueError(f"samplers must be a list, got {samplers!r}; put it in brackets")
    return [s if isinstance(s, Sampler) else _build(s, place) for place, s in enumerate(samplers)]


def _build(sampler: object, place: int) -> Narrows:
    try:
        (options,) = _SAMPLERS.validate_python([sampler])
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, ('', *e['loc'][1:])))}: {e['msg']}" for e in error.errors())
        raise ValueError("; ".join(f"samplers[{place}]{line}" for line in lines)) from error
    made: Narrows = options.part(options)
    return made


def uniforms(seed: int | None, rows: int, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each row, (rows, count), float64 on the CPU, the same for every device.

    A row's numbers depend on the seed and the row's index alone, not on `rows` or `count`. Without a seed, torch's
    global generator draws one. Raises ValueError for a seed outside [0, 2^64).
    """
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a whole number from 0 to 2^64 - 1, got {seed!r}")
    with torch.device("cpu"):
        drawn = [torch.rand(count, generator=_generator(seed, row), dtype=torch.float64) for row in range(rows)]
    return torch.stack(drawn)


def _generator(seed: int, row: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def choose(logits: Tensor, samplers: Sequence[Narrows], uniform: Tensor | None) -> Tensor:
    """One token for each row: logits (B, V), uniform (B,) in [0, 1) -> (B,); the argmax without `uniform`.

    Raises ValueError when the logits are not finite, or when the samplers leave no token in a row.
    """
    chosen = pick(logits, samplers, uniform)
    sound(chosen[1].tolist())
    return chosen[0]


def pick(logits: Tensor, samplers: Sequence[Narrows], uniform: Tensor | None) -> Tensor:
    """Like `choose`, without synchronization: it checks no values.

    Returns (2, B): the tokens, and an error code for each row, which `sound` checks.
    """
    narrowed = logits = logits.float()
    for sampler in samplers:
        narrowed = sampler.apply(narrowed)
    best, likeliest = narrowed.max(dim=-1)  # (B,) twice
    why = torch.where(logits.amax(dim=-1).isfinite(), NOTHING, UNUSABLE) if samplers else UNUSABLE
    wrong = torch.where(best.isfinite(), 0, why)
    if uniform is None:
        return torch.stack([likeliest, wrong])
    cumulative = narrowed.double().softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    shares = cumulative / cumulative[:, -1:]
    # The first cumulative probability above the number exists: the last is 1, and its token has a probability.
    drawn = torch.searchsorted(shares, uniform[:, None].contiguous(), right=True).squeeze(1)
    return torch.stack([drawn.clamp(max=logits.shape[1] - 1), wrong])  # keep the index in range for faulty rows


class Picker:
    """`pick` with these samplers among ids below `limit`; the argmax without samplers."""

    def __init__(self, samplers: Sequence[Narrows], limit: int) -> None:
        self.samplers, self.limit = samplers, limit

    def __call__(self, logits: Tensor, draw: Tensor | None) -> Tensor:
        """Logits (B, V) and draws (B,) -> choices (2, B), in new memory."""
        return pick(logits[:, : self.limit], self.samplers, draw if self.samplers else None)


NOTHING, UNUSABLE = 1, 2
"""Error code of a row: no token is left, or its logits are not numbers; 0 is sound."""


def sound(wrong: Sequence[int]) -> None:
    """Raise ValueError if a row has an error code."""
    if UNUSABLE in wrong:
        row = wrong.index(UNUSABLE)
        raise ValueError(
            f"the model's logits for prompt {row} are not numbers (NaN or infinite); its weights are unusable"
        )
    if NOTHING in wrong:
        raise ValueError("the samplers leave no token to choose")
