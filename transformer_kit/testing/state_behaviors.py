"""Behaviors of every decode state: selected rows, truncation and reset rows agree with a new run.

Each function takes a model, like those of `behaviors`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from registry.context import PADDING
from registry.state import DecodeState
from transformer_kit.model.model import Model
from transformer_kit.testing.carriers import LENGTH, agree, tokens


@torch.no_grad()
def rows_selected(model: Model) -> None:
    """Rows selected in another order, or several times, continue as those rows."""
    rows = torch.tensor([2, 0, 2, 1])
    for ids, segments in _texts(model):
        expected = model(ids, segments=segments).logits
        for prompt in (4, LENGTH - 4):
            state = model.state(len(ids), LENGTH)
            _read(model, ids, segments, state, 0, prompt)
            state.select_rows(rows)
            got = _step(model, ids[rows], state, prompt)
            agree(got, expected[rows, prompt:], f"logits of selected rows after {prompt} tokens")
        assert state.batch == len(rows), f"the state says that it is for {state.batch} rows, of {len(rows)}"


@torch.no_grad()
def tokens_forgotten(model: Model) -> None:
    """After `truncate` drops a draft, the sequence continues as if the draft had never been there."""
    for ids, segments in _texts(model):
        expected = model(ids, segments=segments).logits
        wrong = (ids + 1) % model.spec.model.vocab_size
        state = model.state(len(ids), LENGTH, rollback=4)
        prompt = 0
        for accepted, draft in ((2, 4), (4, 3), (3, 1)):  # rolling caches of the examples wrap around on the way
            got = _read(model, ids, segments, state, prompt, prompt + accepted)
            agree(got, expected[:, prompt : prompt + accepted], f"logits after a draft was dropped at {prompt}")
            prompt += accepted
            model(wrong[:, prompt : prompt + draft], state=state)
            state.truncate(prompt)
        agree(_step(model, ids, state, prompt), expected[:, prompt:], "logits after the last draft was dropped")
    state.truncate(0)
    agree(model(ids, state=state).logits, model(ids).logits, "logits after all was forgotten")


@torch.no_grad()
def rows_begun_again(model: Model) -> None:
    """A reset row starts a new sequence, and the others continue; a fully reset state equals a new one."""
    for ids, segments in _texts(model):
        whole, alone = model(ids, segments=segments).logits, model(ids).logits
        prompt, begun = LENGTH - 4, torch.tensor([False, True, False])
        state = model.state(len(ids), LENGTH)
        _read(model, ids, segments, state, 0, prompt)
        state.reset(begun)
        following = torch.where(begun[:, None], ids[:, : LENGTH - prompt], ids[:, prompt:])
        got = _step(model, following, state, 0)
        agree(got[~begun], whole[~begun, prompt:], "logits of rows beside one that was reset")
        agree(got[begun], alone[begun, : LENGTH - prompt], "logits of a row that was reset")
        state.reset()
        agree(model(ids, segments=segments, state=state).logits, whole, "logits after a reset of all rows")


def _texts(model: Model) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Ids (B, T) without segments, and with padding on the left of two rows."""
    ids = tokens(model)
    padded = torch.full_like(ids, 3)
    padded[0, :1] = padded[2, :3] = PADDING
    yield ids, None
    yield ids, padded


def _read(model: Model, ids: Tensor, segments: Tensor | None, state: DecodeState, begin: int, end: int) -> Tensor:
    """Logits of the tokens from `begin` to `end`, in one pass."""
    part = None if segments is None else segments[:, begin:end]
    return model(ids[:, begin:end], segments=part, state=state).logits


def _step(model: Model, ids: Tensor, state: DecodeState, begin: int) -> Tensor:
    """Logits of the tokens from `begin` on, one by one, in the current segment of each row."""
    return torch.cat([model(ids[:, t : t + 1], state=state).logits for t in range(begin, ids.shape[1])], dim=1)
