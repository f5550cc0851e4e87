"""What only a GPU can show: the same numbers as on the processor, fused kernels taken, no waiting inside a step."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from registry import core
from transformer_kit import Spec, build
from transformer_kit.model.model import Model
from transformer_kit.model.recompute import recompute
from transformer_kit.train.precision import Placement
from transformer_kit.train.step import Batch, Step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def _model(device: str, window: int | None = None, position: str = "rope", **sizes: Any) -> Model:
    mixer = {"type": "attention", "n_heads": 4, "n_kv_heads": 2, "window": window}
    block = {"type": "pre_norm", "mixer": mixer, "ffn": "gated"}
    page = {"vocab_size": 300, "d_model": 128, "max_seq_len": 128, "norm": "rms_norm"} | sizes
    return build(
        Spec.of({"model": {**page, "position": position, "layers": {"count": 3, "block": block}}}), device=device
    )


def _ids(rows: int = 2, length: int = 64) -> Tensor:
    return torch.randint(300, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("position", ["rope", "learned", "alibi"])
@pytest.mark.parametrize("window", [None, 9])
def test_logits_and_loss_as_on_the_processor(position: str, window: int | None) -> None:
    here, there = (_model(device, window, position).eval() for device in ("cpu", "cuda"))
    ids = _ids()
    segments = (torch.arange(64) // 25).expand_as(ids)
    for given in (None, segments):
        moved = None if given is None else given.cuda()
        expected, found = here(ids, ids, segments=given), there(ids.cuda(), ids.cuda(), segments=moved)
        torch.testing.assert_close(found.logits.cpu(), expected.logits, rtol=1e-4, atol=1e-4)
        total, count = there.loss(ids.cuda(), ids.cuda(), segments=moved)
        torch.testing.assert_close((total / count).cpu(), expected.loss, rtol=1e-4, atol=1e-4)


def test_the_same_text_as_on_the_processor() -> None:
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    expected = _model("cpu").eval().generate(prompts, max_new_tokens=20)
    assert _model("cuda").eval().generate(prompts, max_new_tokens=20) == expected


def test_plain_causal_attention_takes_the_flash_kernel() -> None:
    model = _model("cuda").bfloat16()
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):  # raises where that kernel does not take what it is given
        model.loss(_ids().cuda(), _ids().cuda())[0].backward()


@pytest.mark.parametrize("anew", [False, True])
def test_a_step_never_waits_for_the_device(anew: bool) -> None:
    model = _model("cuda", vocab_size=300).train()
    if anew:
        recompute(model)
    objective, optimizer = (core.get(*name) for name in (("objective", "causal_lm"), ("optimizer", "adamw")))
    made = optimizer(optimizer.Options(lr=1e-3)).make(model)
    placement = Placement(torch.device("cuda"), torch.bfloat16)
    step = Step(model, objective(objective.Options()), made, placement, 1.0)
    tokens = _ids(2, 65)
    step([Batch(tokens, None)], 1.0)  # the first makes the optimizer's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome = step([Batch(tokens, None)], 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert outcome.loss.isfinite()


@pytest.mark.slow
def test_compiled_layers_are_the_plain_ones() -> None:
    model = _model("cuda").train()
    ids = _ids().cuda()
    expected = model.loss(ids, ids)[0]
    for layer in model.layers:
        layer.compile()
    torch.testing.assert_close(model.loss(ids, ids)[0], expected, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 9])
def test_the_flex_kernel_is_the_plain_formula(window: int | None) -> None:
    models = [build(_model("cpu", window).spec, device="cuda", kernel=kernel) for kernel in ("eager", "flex")]
    ids = _ids(2, 128).cuda()
    segments = (torch.arange(128) // 50).expand_as(ids).cuda()
    losses = [model.loss(ids, ids, segments=segments)[0] for model in models]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-2)
    for loss in losses:
        loss.backward()
    for found, expected in zip(models[1].parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-2, atol=1e-2)
