"""Products in bfloat16 of weights in float32: who says so, what it changes, what cannot be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from registry.core import get
from transformer_kit.cost.card import Card, card
from transformer_kit.cost.mixed import Mixed, autocast
from transformer_kit.model.build import build
from transformer_kit.spec.schema import RunSpec, Spec

Page = Callable[..., Spec]
ASKED = {"batch": 2, "seq": 32}


def _run(page: Page, **hardware: Any) -> Spec:
    run = {"optimizer": {"type": "adamw", "lr": 0.1}, "train": {"steps": 1}, "hardware": hardware}
    return RunSpec.of({"model": page().resolved()["model"], **run})


def test_what_is_kept_is_less_and_what_is_counted_of_the_model_the_same(page: Page) -> None:
    many = {"batch": 8, "seq": 128}  # tokens beside which copies of weights are small
    exact, mixed = card(page(), **many), card(page(), **many, precision="bfloat16")
    assert mixed.memory.activations < 0.8 * exact.memory.activations
    for figure in ("parameters", "flops", "state"):
        assert getattr(mixed, figure) == getattr(exact, figure)
    for figure in ("weights", "gradients", "optimizer"):
        assert getattr(mixed.memory, figure) == getattr(exact.memory, figure)
    assert "8 sequences of 128 tokens in float32, products in bfloat16\n" in mixed.text()
    assert (exact.precision, mixed.precision, mixed.data()["precision"]) == ("float32", "bfloat16", "bfloat16")


def test_a_run_says_what_it_multiplies_in_unless_asked_for_another(page: Page) -> None:
    def counted(says: str, **asked: Any) -> Card:
        return card(_run(page, precision=says), **ASKED, **asked)

    assert counted("bfloat16").precision == "bfloat16"
    assert counted("bfloat16").memory == counted("float32", precision="bfloat16").memory
    assert counted("float32").memory == counted("auto").memory == counted("bfloat16", precision="float32").memory
    assert counted("bfloat16").memory != counted("float32").memory
    assert any("auto is counted as float32" in note for note in counted("auto").notes)
    for told in (counted("float32"), counted("auto", precision="float32"), counted("auto", dtype="bfloat16")):
        assert not any("auto" in note for note in told.notes)


def test_what_cannot_be_is_refused(page: Page) -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, auto, got 'int8'"):
        card(page(), precision="int8")
    with pytest.raises(ValueError, match="requires weights in float32, not bfloat16; leave out precision or dtype"):
        card(page(), dtype="bfloat16", precision="bfloat16")
    assert card(_run(page, precision="bfloat16"), **ASKED, dtype="bfloat16") is not None


WATCHED = (F.linear, F.rms_norm, torch.rms_norm, Tensor.softmax)
MIXTURE = {"type": "moe", "n_experts": 4, "router": {"type": "softmax", "top_k": 2}, "expert": "gated"}


class _Types(TorchFunctionMode):
    """Notes the types of what functions return."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, torch.dtype]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and func in WATCHED:
            self.found.append((func.__name__, out.dtype))
        return out


@pytest.mark.parametrize("ffn", ["gated", MIXTURE], ids=["dense", "experts"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_types_are_those_of_torchs_autocast(page: Page, ffn: Any, kernel: str) -> None:
    spec, tokens = page(block={"ffn": ffn}), torch.zeros(1, 8, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16), _Types() as real:
        logits = build(spec, kernel=_kernel(kernel))(tokens).logits
    with autocast(torch.bfloat16), Mixed(), _Types() as counted:
        ours = build(spec, device="meta", kernel=_kernel(kernel))(tokens.to("meta")).logits
    assert ours.dtype == logits.dtype == torch.bfloat16
    assert set(counted.found) == set(real.found)
    if ffn == "gated":  # without values, tokens go to other experts
        assert counted.found == real.found
    assert real.found
    assert not torch.is_autocast_enabled("cpu")


def _kernel(name: str) -> Any:
    return get("kernel", name).Options()
