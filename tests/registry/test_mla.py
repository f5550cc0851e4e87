"""Latent attention decodes by its absorbed form, which is the expanded one written in another order."""

from typing import Any

import pytest
import torch

from registry.context import PADDING
from registry.mixer.mla import MLA
from registry.state import LatentCache
from transformer_kit import Spec, build, read
from transformer_kit.cost.card import card
from transformer_kit.model.model import Model
from transformer_kit.testing.carriers import strong_init

MIXER = {"type": "mla", "n_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 16}
DIMS = {"qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5}
T = 12


def made(**options: Any) -> Model:
    block = {"type": "pre_norm", "mixer": {**MIXER, **DIMS, **options}, "ffn": "mlp"}
    page = {"vocab_size": 40, "d_model": 32, "max_seq_len": 32, "position": "rope"}
    model = build(Spec.of({"model": {**page, "layers": {"count": 2, "block": block}}}), dtype="float64").eval()
    strong_init(model, 0)
    return model


@pytest.mark.parametrize("absorbs", [True, False])
@pytest.mark.parametrize("chunks", [[1] * T, [5, 1, 6], [T]])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    "options", [{}, {"query_scaling": {"type": "llama4", "beta": 0.3, "length": 4}}, {"latents": {"kv_scale": 1.7}}]
)
@torch.no_grad()
def test_both_forms_give_the_logits_of_reading_at_once(
    monkeypatch: pytest.MonkeyPatch, absorbs: bool, chunks: list[int], padding: int, options: dict[str, Any]
) -> None:
    model = made(**options)
    monkeypatch.setattr(MLA, "absorbs", lambda *_: absorbs)
    ids = torch.randint(40, (2, T), generator=torch.Generator().manual_seed(0))
    segments = torch.zeros_like(ids)
    segments[1, :padding] = PADDING
    expected, state, found, begin = model(ids, segments=segments).logits, model.state(2, T), [], 0
    for size in chunks:
        here = slice(begin, begin + size)
        found.append(model(ids[:, here], segments=segments[:, here], state=state).logits)
        begin += size
    assert torch.allclose(torch.cat(found, dim=1), expected, atol=1e-9)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_one_token_is_attended_to_in_the_absorbed_form(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    """The up-projections of keys and values see no token when one token is decoded."""
    model = build(made().spec, kernel=kernel).eval()
    mixer: Any = model.layers[0].mixer
    calls: list[str] = []
    for name in ("k_up", "v_up"):
        getattr(mixer, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        state = model.state(1)
        model(torch.tensor([[1, 2, 3]] * 1), state=state)
        calls.clear()
        model(torch.tensor([[4]]), state=state)
    assert not calls


def test_the_form_with_fewer_multiplications_is_taken() -> None:
    """Of DeepSeek-V3's widths: 512 in place of 128 + 128 for each query and key, against 512 * 256 for each key."""
    mixer = build(read("deepseek-v3-671b"), device="meta").layers[0].mixer
    assert isinstance(mixer, MLA)
    assert [mixer.absorbs(length) for length in (1, 170, 171, 4096)] == [True, True, False, False]


def test_a_token_takes_one_latent_and_one_rotary_key() -> None:
    assert card(read("deepseek-v3-671b"), dtype="bfloat16").state.bytes_per_token == 61 * (512 + 64) * 2 == 70_272
    state = made().state(3, 10)
    assert all(type(layer) is LatentCache for layer in state.layers)
    assert state.bytes_per_token == 2 * (16 + 4) * 8
