"""Counting starts fast, and leaves no trace."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_a_large_model_is_counted_in_little_memory_without_the_compiler() -> None:
    code = """
import sys
from pathlib import Path
from transformer_kit.cost.card import card
from transformer_kit.spec.read import read
print(card(read("llama-3-8b")).parameters.total, "torch._dynamo" in sys.modules)
# What the operating system says of a child's usage begins with that of its parent.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(int(peak.split()[1]) < 1024 * 1024)
"""
    assert run(code).split() == ["8030261248", "False", "True"]


def test_the_compiler_works_afterwards() -> None:
    code = """
from transformer_kit.cost.card import card
from transformer_kit.spec.read import read
import torch
card(read("tutorial"))
assert not hasattr(torch._refs.arange.__wrapped__, "__dynamo_disable")
from transformer_kit.cost.quick import uncompiled
with uncompiled():
    import torch._dynamo.config
    print(torch._dynamo.config.suppress_errors)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item(), torch._dynamo.is_compiling())
"""
    assert run(code).split() == ["False", "2.0", "False"]


def test_a_model_counted_is_as_it_was() -> None:
    code = """
import torch
from transformer_kit.cost.count import kinds, usage
from transformer_kit.cost.meter import Work
from registry import core
from transformer_kit import build
model = build("tutorial", device="meta").eval()
names, stack = list(model.state_dict()), model.layers
loss = core.get("objective", "causal_lm")
usage(model, kinds(model), Work(loss(loss.Options()), 1, 8))
print(list(model.state_dict()) == names, model.layers is stack, model.training)
print(all(p.grad is None for p in model.parameters()), len(model.head._forward_pre_hooks))
"""
    assert run(code).split() == ["True", "True", "False", "True", "0"]
