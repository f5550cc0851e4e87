"""What only a GPU can show: the same numbers as on the processor, fused kernels taken, no waiting inside a step."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from registry import core
from registry.grouped import grouped_linear
from transformer_kit import Spec, build, prepare_for_inference
from transformer_kit.generate import cuda_graph, decode
from transformer_kit.generate.cuda_graph import CUDAGraph, captured
from transformer_kit.model.model import Model
from transformer_kit.testing import strong_init
from transformer_kit.train.precision import Placement
from transformer_kit.train.step import Batch, Step
from transformer_kit.transform.activation_checkpointing import activation_checkpointing

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
        chunked = there(ids.cuda(), ids.cuda(), segments=moved, skip_logits=True).loss
        torch.testing.assert_close(chunked.cpu(), expected.loss, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_tied_table_as_on_the_processor() -> None:
    here, there = (_model(device, head={"type": "lm", "tied": True}) for device in ("cpu", "cuda"))
    ids = _ids(1)  # fewer than there are rows
    here(ids, ids, skip_logits=True).loss.backward()
    found = []
    for _ in range(2):
        there.zero_grad()
        moved = ids.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            there(moved, moved, skip_logits=True).loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert there.embedding.weight.grad is not None
        found.append(there.embedding.weight.grad.cpu())
    assert here.embedding.weight.grad is not None
    torch.testing.assert_close(found[0], here.embedding.weight.grad, rtol=1e-4, atol=1e-4)
    assert torch.equal(*found)


def test_the_same_text_as_on_the_processor() -> None:
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    expected = _model("cpu").eval().generate(prompts, max_new_tokens=20)
    assert _model("cuda").eval().generate(prompts, max_new_tokens=20) == expected


def _written(model: Model, prompts: list[list[int]], samplers: list[str | dict[str, Any]]) -> list[list[int]]:
    return model.generate(prompts, max_new_tokens=40, samplers=samplers, seed=3)


@pytest.mark.parametrize("position", ["rope", "learned", "alibi"])
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("samplers", [[], [{"type": "top_k", "k": 20}, "temperature", {"type": "top_p", "p": 0.9}]])
def test_captured_steps_choose_what_plain_ones_do(
    position: str, window: int | None, samplers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rooms of 12 tokens and twice as many are outgrown on the way."""
    made: list[object] = []

    def kept(*given: Any) -> object:
        made.append(captured(*given))
        return made[-1]

    model = _model("cuda", window, position)
    strong_init(model, 0)
    model = prepare_for_inference(model)
    for prompts in ([[1, 2, 3, 4, 5, 6, 7, 8]], [[1, 2, 3], [4, 5, 6, 7, 8]]):
        monkeypatch.setattr(decode, "captured", lambda *given: None)
        expected = _written(model, prompts, samplers)
        monkeypatch.setattr(decode, "captured", kept)
        monkeypatch.setattr(cuda_graph, "FIRST", 12)
        assert _written(model, prompts, samplers) == expected
    assert [type(one) for one in made] == [CUDAGraph, CUDAGraph]


@pytest.mark.slow
def test_compiled_steps_write_what_plain_ones_do() -> None:
    model = _model("cuda")
    strong_init(model, 0)
    expected = model.generate([[1, 2, 3]], max_new_tokens=40)
    assert decode.generate(model, [[1, 2, 3]], max_new_tokens=40, compile=True) == expected
    assert all(layer._compiled_call_impl is None for layer in model.layers)


def test_hooks_are_called_at_every_step() -> None:
    """So nothing is captured."""
    seen: list[int] = []
    model = prepare_for_inference(_model("cuda"))
    model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    model.generate([[1, 2, 3]], max_new_tokens=20)
    assert len(seen) == 20


@pytest.mark.parametrize("norm", ["none", "rms_norm"])
def test_experts_generate_as_on_a_cpu(norm: str) -> None:
    """With a norm they are modules of their own, of which each step waits for the numbers of tokens."""
    page = {"vocab_size": 300, "d_model": 64, "max_seq_len": 128, "position": "rope", "norm": "rms_norm"}
    expert = {"type": "gated", "norm": norm}
    ffn = {"type": "moe", "n_experts": 4, "router": {"type": "softmax", "top_k": 2}, "expert": expert}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4}, "ffn": ffn}
    spec = Spec.of({"model": {**page, "layers": {"count": 2, "block": block}}})
    expected = build(spec).eval().generate([[1, 2, 3]], max_new_tokens=20)
    assert build(spec, device="cuda").eval().generate([[1, 2, 3]], max_new_tokens=20) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_grouped_products_never_wait_for_the_device(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*shape, generator=draw).to("cuda", dtype) for shape in ((300, 64), (5, 32, 64)))
    offsets = torch.tensor([0, 90, 91, 250, 300], dtype=torch.int32, device="cuda")
    given = [x.requires_grad_(), weight.requires_grad_()]
    slope = torch.ones(300, 32, device="cuda", dtype=dtype)
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = grouped_linear(x, weight, None, offsets)
        got = [y, *torch.autograd.grad(y, given, slope)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    x, weight = (t.detach().cpu().requires_grad_() for t in given)
    y = grouped_linear(x, weight, None, offsets.cpu())
    expected = [y, *torch.autograd.grad(y, [x, weight], slope.cpu())]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=2e-2, atol=2e-2)


def test_unusable_weights_are_named_when_steps_are_captured() -> None:
    model = _model("cuda")
    with torch.no_grad():
        model.norm.weight.fill_(torch.nan)
    model = prepare_for_inference(model)
    with pytest.raises(ValueError, match="prompt 0 are not numbers"):
        model.generate([[1, 2, 3]], max_new_tokens=20)


def test_plain_causal_attention_takes_the_flash_kernel() -> None:
    model = _model("cuda").bfloat16()
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):  # raises where that kernel does not take what it is given
        model(_ids().cuda(), _ids().cuda(), skip_logits=True).loss.backward()


@pytest.mark.parametrize("position", ["rope", "learned", "alibi", "key_alibi"])
@pytest.mark.parametrize("anew", [False, True])
def test_a_step_never_waits_for_the_device(anew: bool, position: str) -> None:
    model = _model("cuda", position=position).train()
    if anew:
        activation_checkpointing(model)
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
    expected = model(ids, ids, skip_logits=True).loss
    for layer in model.layers:
        layer.compile()
    torch.testing.assert_close(model(ids, ids, skip_logits=True).loss, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 9])
def test_the_flex_kernel_is_the_plain_formula(window: int | None) -> None:
    models = [build(_model("cpu", window).spec, device="cuda", kernel=kernel) for kernel in ("eager", "flex")]
    ids = _ids(2, 128).cuda()
    segments = (torch.arange(128) // 50).expand_as(ids).cuda()
    losses = [model(ids, ids, segments=segments, skip_logits=True).loss for model in models]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-2)
    for loss in losses:
        loss.backward()
    for found, expected in zip(models[1].parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-2, atol=1e-2)
