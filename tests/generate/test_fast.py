"""Packed weights: the plain result, only inside, and never a stale one."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry.contracts import ModelPart, Site
from transformer_kit import Spec, build
from transformer_kit.generate import copies, stream
from transformer_kit.generate.fast import Laid
from transformer_kit.generate.layouts import Packed, Packer, columns, eight_bits, layout_for, mkl, onednn
from transformer_kit.model.model import Model

PACKERS = [
    pytest.param(mkl, marks=pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs MKL")),
    pytest.param(onednn, marks=pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")),
]

IDS = torch.tensor([[3]])


def _model() -> Model:
    block = {
        "type": "pre_norm",
        "mixer": {"type": "attention", "n_heads": 4, "n_kv_heads": 2, "bias": ["q", "out"]},
        "ffn": {"type": "moe", "n_experts": 3, "router": {"type": "softmax", "top_k": 2}, "expert": "gated"},
    }
    sizes = {"vocab_size": 97, "d_model": 32, "max_seq_len": 40, "position": "rope"}
    head = {"type": "lm", "tied": True, "bias": True}
    return build(Spec.of({"model": {**sizes, "layers": {"count": 2, "block": block}, "head": head}})).eval()


@pytest.fixture(params=[*PACKERS, columns])
def packed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Packer]:
    """This packer for any number of rows that it is for, whatever the machine would choose."""

    def pack(rows: int) -> Packer:
        if request.param is columns and rows > 1:
            pytest.skip("for one row")
        packer: Packer = mkl(rows) if request.param is mkl else request.param
        return packer

    monkeypatch.setattr(copies, "layout_for", lambda weight, rows: pack(rows))
    monkeypatch.setattr(copies, "PAYS", 1)
    return pack


@pytest.mark.parametrize("rows", [1, 3])
def test_decoding_with_packed_weights_equals_the_plain(packed: Callable[[int], Packer], rows: int) -> None:
    model = _model()
    ids = torch.randint(97, (rows, 12), generator=torch.Generator().manual_seed(0))
    expected = model(ids).logits
    with torch.inference_mode(), Laid(model, packed(rows), rows) as laid, laid.active():
        state = model.state(rows)
        found = [model(ids[:, :5], state=state).logits]
        found += [model(ids[:, t : t + 1], state=state).logits for t in range(5, 12)]
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_afterwards_nothing_is_left(packed: Callable[[int], Packer]) -> None:
    model = _model()
    names = list(model.state_dict())
    with Laid(model, packed(1), 1):
        assert list(model.state_dict()) == names
        assert "forward" in model.layers[0].mixer.q.__dict__
    assert not any({"forward", "project"} & set(m.__dict__) for m in model.modules())


def test_a_weight_that_changes_is_never_read_from_its_copy(packed: Callable[[int], Packer]) -> None:
    linear = nn.Sequential(nn.Linear(8, 8))
    x = torch.randn(1, 1, 8)
    with Laid(linear, packed(1), 1) as laid:
        with torch.no_grad():
            linear[0].weight.mul_(2.0)
            with laid.active():
                torch.testing.assert_close(linear(x), F.linear(x, linear[0].weight, linear[0].bias))
            linear[0].weight = nn.Parameter(torch.ones(8, 8))
            with laid.active():
                torch.testing.assert_close(linear(x), F.linear(x, linear[0].weight, linear[0].bias))
        with laid.active():
            linear(x).sum().backward()  # where gradients are wanted, the weights themselves give them
    assert linear[0].weight.grad is not None


def test_a_weight_that_is_hidden_for_a_while_is_missed_no_longer_than_that(packed: Callable[[int], Packer]) -> None:
    layer, x = nn.Linear(8, 8), torch.randn(1, 1, 8)
    with torch.inference_mode(), Laid(nn.Sequential(layer), packed(1), 1) as laid:
        (product,) = laid.products
        assert product.copy is not None
        calls, multiply = [], product.copy.multiply
        product.copy.multiply = lambda x: calls.append(x) or multiply(x)
        layer.__dict__["weight"] = torch.ones(8, 8)
        with laid.active():
            torch.testing.assert_close(layer(x), F.linear(x, torch.ones(8, 8), layer.bias))
        assert not calls
        del layer.__dict__["weight"]
        with laid.active():
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        assert len(calls) == 1


def test_a_weight_that_changes_between_steps_is_read_anew(packed: Callable[[int], Packer]) -> None:
    model, other = _model(), _model()
    with torch.no_grad():
        for weight in other.parameters():
            weight.normal_()
    with torch.inference_mode(), Laid(model, packed(1), 1) as laid:
        with laid.active():
            model(IDS)
        for mine, new in zip(model.modules(), other.modules(), strict=True):
            for name, weight in new._parameters.items():
                setattr(mine, name, weight)
        with laid.active():
            torch.testing.assert_close(model(IDS).logits, other(IDS).logits)


def test_between_steps_a_model_uses_its_weights() -> None:
    model, calls = _model(), []

    def counting(weight: Tensor, bias: Tensor | None) -> Packed:
        return lambda x: calls.append(x) or F.linear(x, weight, bias)

    with torch.inference_mode(), Laid(model, counting, 1) as laid:
        with laid.active():
            model(IDS)
        used = len(calls)
        model(IDS)
        model.layers[0].mixer.q(torch.ones(1, 1, 32))
    assert used > 0
    assert len(calls) == used


def test_layers_that_read_the_same_are_one_product(packed: Callable[[int], Packer]) -> None:
    model, products = _model(), []

    def counting(weight: Tensor, bias: Tensor | None) -> Packed:
        multiply = packed(1)(weight, bias)
        return lambda x: products.append(weight.shape) or multiply(x)

    with torch.inference_mode(), Laid(model, counting, 1) as laid, laid.active():
        state = model.state(1)
        for token in (3, 5):
            products.clear()
            model(torch.tensor([[token]]), state=state)
    inner = products[2][0] // 2
    assert products[:2] == [(64, 32), (32, 32)]  # q beside k and v, and the way out
    assert products[2:4] == [(2 * inner, 32), (32, inner)]  # an expert: gate beside up, and down
    assert products[-1] == (97, 32)


def test_what_is_asked_twice_is_computed_twice(packed: Callable[[int], Packer]) -> None:
    class Pair(ModelPart):
        together = (("a", "b"),)

    pair = Pair(None, Site(d_model=8))
    pair.a, pair.b = nn.Linear(8, 4, bias=False), nn.Linear(8, 8)
    x = torch.randn(2, 1, 8)
    with torch.inference_mode(), Laid(pair, packed(2), 2) as laid, laid.active():
        for _ in range(2):  # the same tensor, with something else in it
            x.mul_(2)
            for linear in (pair.a, pair.b, pair.b):
                torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4])
def test_under_autocast_generation_uses_the_weights_themselves(rows: int) -> None:
    model, prompts = _model(), [[1, 2, 3]] * rows
    assert layout_for(model.embedding.weight, 2) is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert layout_for(model.embedding.weight, 2) is None
        assert len(model.generate(prompts, max_new_tokens=3)[0]) == 3


@pytest.mark.parametrize("rows", [1, 4])
def test_a_model_in_bfloat16_writes_what_its_own_weights_do(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = _model().bfloat16(), [[1, 2, 3]] * rows
    monkeypatch.setattr(copies, "PAYS", 1)
    found = model.generate(prompts, max_new_tokens=3)
    monkeypatch.setattr(copies, "layout_for", lambda weight, rows: None)
    assert model.generate(prompts, max_new_tokens=3) == found


def test_another_type_than_the_copy_has_is_multiplied_plainly(packed: Callable[[int], Packer]) -> None:
    model = _model()
    with (
        torch.inference_mode(),
        Laid(model, packed(1), 1) as laid,
        laid.active(),
        torch.autocast("cpu", torch.bfloat16),
    ):
        assert model(torch.tensor([[3]]), state=model.state(1)).logits.isfinite().all()


def test_two_generations_at_once_end_in_any_order(packed: Callable[[int], Packer]) -> None:
    model, expected = _model(), _model().generate([[1, 2, 3]], max_new_tokens=4)
    first, second = (model.stream([[1, 2, 3]], max_new_tokens=4) for _ in range(2))
    begun = [next(first), next(second)]
    assert [begun[0], *first] == [[token] for token in expected[0]]
    assert [begun[1], *second] == [[token] for token in expected[0]]
    assert not any({"forward", "project"} & set(m.__dict__) for m in model.modules())


def test_generation_uses_it(packed: Callable[[int], Packer]) -> None:
    model, during = _model(), []
    plain = model.generate([[1, 2, 3], [4, 5]], max_new_tokens=6)
    for _ in model.stream([[1, 2, 3], [4, 5]], max_new_tokens=6):
        during.append("forward" in model.layers[0].mixer.q.__dict__)
    assert during == [False] + [True] * 5  # not before the first token
    assert len(plain[0]) == 6


def test_eight_bits_write_the_tokens_and_do_not_read_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = _model(), []

    def counting(weight: Tensor, bias: Tensor | None) -> Packed:
        multiply = eight_bits(weight, bias)
        return lambda x: calls.append(x) or multiply(x)

    monkeypatch.setattr(copies, "eight_bits", counting)
    steps, seen = stream(model, [[1, 2, 3]], max_new_tokens=3, int8=True), []
    for _ in steps:
        seen.append(len(calls))
    assert 0 == seen[0] < seen[1] < seen[2]


def test_eight_bits_are_of_one_generation_alone() -> None:
    model = _model()
    expected, logits = list(stream(model, [[5, 6]], max_new_tokens=4)), model(IDS).logits
    rounded = stream(model, [[1, 2, 3]], max_new_tokens=8, int8=True)
    for _ in range(2):
        next(rounded)
        assert torch.equal(model(IDS).logits, logits)
        assert list(stream(model, [[5, 6]], max_new_tokens=4)) == expected
    assert len(list(rounded)) == 6


def test_a_copy_that_cannot_be_made_leaves_nothing_behind() -> None:
    model, made = _model(), []

    def failing(weight: Tensor, bias: Tensor | None) -> Packed:
        made.append(weight)
        if len(made) == 3:
            raise MemoryError
        return lambda x: F.linear(x, weight, bias)

    with pytest.raises(MemoryError), Laid(model, failing, 1):
        pass
    assert not any({"forward", "project"} & set(m.__dict__) for m in model.modules())


def test_a_weight_that_is_made_before_its_use_is_not_copied() -> None:
    model, calls = _model(), []

    def counting(weight: Tensor, bias: Tensor | None) -> Packed:
        return lambda x: calls.append(weight.shape) or F.linear(x, weight, bias)

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda *_: None)
    with torch.inference_mode(), Laid(model, counting, 1) as laid, laid.active():
        model(IDS)
    assert calls == [(97, 32)]  # the head, which asks at each use


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("two texts", "one text at a time is written so, got 2"),
        ("autocast", "types of its own"),
        ("another type", "got torch.float64"),
    ],
)
def test_eight_bits_are_refused_where_they_do_nothing(case: str, why: str) -> None:
    model = _model().double() if case == "another type" else _model()
    prompts = [[1, 2]] * (2 if case == "two texts" else 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"), pytest.raises(ValueError, match=why):
        stream(model, prompts, max_new_tokens=2, int8=True)


def test_eight_bits_are_for_a_processor() -> None:
    with pytest.raises(ValueError, match="for a processor, the model is on meta"):
        copies._eight_bits(_model().to("meta"), 1)


def test_copies_are_let_go_of_at_once(model: Model) -> None:
    """Not when a circle is found, which can take long, and memory for two."""
    gc.disable()
    try:
        with Laid(model, columns, 1) as laid:
            held = [weakref.ref(product.copy) for product in laid.products if product.copy is not None]
            assert all(copy() is not None for copy in held)
        del laid
        assert [copy() for copy in held] == [None] * len(held)
    finally:
        gc.enable()
