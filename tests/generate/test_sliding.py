"""Text past the context of absolute positions: cropped, as the loop of tutorials does."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transformer_kit.generate import generate
from transformer_kit.generate.sliding import note
from transformer_kit.model.model import Model

LIMIT = 8
LONG = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
PROMPTS = [LONG[:3], LONG[:7], LONG]


@torch.no_grad()
def tutorial_generate(model: Model, context: Tensor, max_new_tokens: int, context_len: int) -> Tensor:
    """The loop as tutorials write it, with the likeliest token in place of a drawn one."""
    for _ in range(max_new_tokens):
        logits, _ = model(context[:, -context_len:])
        probabilities = F.softmax(logits[:, -1, :], dim=-1)
        chosen = probabilities.argmax(dim=-1, keepdim=True)
        context = torch.cat((context, chosen), dim=1)
    return context


@pytest.mark.parametrize("position", ["sinusoidal", "learned"])
@pytest.mark.parametrize("window", [None, 3])
def test_equals_the_loop_of_tutorials(make: Callable[..., Model], position: str, window: int | None) -> None:
    model = make(position, window, max_seq_len=LIMIT).eval()
    model.embedding.table.weight.data.mul_(30)
    expected = [tutorial_generate(model, torch.tensor([p]), 20, LIMIT)[0, len(p) :].tolist() for p in PROMPTS]
    assert len({tuple(row) for row in expected}) == 3
    assert [generate(model, [p], max_new_tokens=20)[0] for p in PROMPTS] == expected
    assert generate(model, PROMPTS, max_new_tokens=20) == expected, "rows of a batch are cropped each by itself"
    assert generate(model, PROMPTS, max_new_tokens=20, chunk=3) == expected


def test_the_context_is_used_to_its_last_token_before_it_slides(make: Callable[..., Model]) -> None:
    model = make("learned", max_seq_len=LIMIT).eval()
    lengths: list[int] = []
    model.register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
    generate(model, [[1, 2, 3]], max_new_tokens=9)
    assert lengths == [3, 1, 1, 1, 1, 1, LIMIT, LIMIT, LIMIT]


def test_the_window_follows_cached_steps(make: Callable[..., Model]) -> None:
    model = make("sinusoidal", max_seq_len=64).eval()
    model.embedding.table.weight.data.mul_(30)
    expected = tutorial_generate(model, torch.tensor([LONG]), 80, 64)[0, len(LONG) :].tolist()
    assert generate(model, [LONG], max_new_tokens=80) == [expected]


def test_relative_positions_are_not_cropped(make: Callable[..., Model]) -> None:
    rotary = make("rope", max_seq_len=LIMIT).eval()
    rotary.embedding.table.weight.data.mul_(30)
    assert note(rotary.spec.model, 7, 1) is None
    assert "more than max_seq_len (8), which the model is made for" in str(note(rotary.spec.model, 7, 20))
    text = list(LONG)
    for _ in range(6):
        with pytest.warns(UserWarning, match="more than max_seq_len"):
            logits = rotary(torch.tensor([text])).logits
        text.append(int(logits[0, -1].argmax()))
    assert generate(rotary, [LONG], max_new_tokens=6) == [text[len(LONG) :]]
    absolute = make("learned", max_seq_len=LIMIT).spec.model
    assert note(absolute, 7, 2) is None
    assert "chosen from the last 8 tokens" in str(note(absolute, 7, 3))
