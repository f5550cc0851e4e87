"""Predicted memory of training against what a process really takes: `python -m tests.benchmarks.memory`.

Each spec trains for two steps, by the code that `kit train` runs, in a process of its own, whose largest resident set
the kernel records. Glibc is told to give memory back at once, so that what is resident is what is in use.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from registry import core
from transformer_kit import build
from transformer_kit.bench.run import PROMPT
from transformer_kit.cost.card import card
from transformer_kit.cost.show import size
from transformer_kit.spec.read import read
from transformer_kit.train.precision import Placement
from transformer_kit.train.step import Batch, Step
from transformer_kit.transform.activation_checkpointing import activation_checkpointing
from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward
from transformer_kit.transform.pipeline import transformed


class Case(NamedTuple):
    """What is trained."""

    spec: str
    batch: int
    seq: int
    sets: tuple[str, ...] = ()
    activation_checkpointing: bool = False
    optimizer_in_backward: bool = False
    """Whether the optimizer steps in the backward pass."""
    dtype: str = "float32"
    """What is multiplied in; weights stay in float32."""


def narrow(*more: str) -> tuple[str, ...]:
    """Changes that make a large model small."""
    return ("model.d_model=512", "model.layers.count=4", *more)


CASES = (
    Case("tutorial", 512, 16),
    Case("transformer-2017-decoder", 4, 256),
    Case("gpt2-124m", 2, 512),
    Case("gpt2-124m", 4, 512, activation_checkpointing=True),
    Case("gpt2-124m", 2, 512, activation_checkpointing=True, optimizer_in_backward=True),
    Case("gpt2-124m", 1, 16),
    Case("gpt-117m", 2, 512),
    Case("gpt-neo-125m", 2, 512),
    Case("pythia-160m", 2, 512),
    Case("ernie-4.5-0.3b", 1, 256),
    Case("qwen2.5-0.5b", 1, 256),
    Case("qwen3-0.6b", 1, 256),
    Case("gemma-3-1b", 1, 128),
    Case("llama-3-8b", 2, 512, narrow("model.layers.block.ffn.d_ff=1792")),
    Case("mistral-7b", 2, 512, narrow("model.layers.block.ffn.d_ff=1792")),
    Case("gemma-2-2b", 2, 512, narrow("model.layers.block.ffn.d_ff=2048")),
    Case("mpt-7b", 2, 512, narrow("model.layers.block.mixer.n_heads=8")),
)


def compare(case: Case) -> tuple[int, int]:
    """Bytes that the card says, and bytes that a process takes."""
    page = read(case.spec, list(case.sets))
    ways = {
        "activation_checkpointing": case.activation_checkpointing,
        "optimizer_in_backward": case.optimizer_in_backward,
        "precision": case.dtype,
    }
    predicted = card(page, batch=case.batch, seq=case.seq, optimizer="adamw", **ways).memory.peak
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--child", json.dumps(case)]
    done = subprocess.run(command, env=os.environ | PROMPT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case.spec}: the process died with {done.returncode}: {done.stderr[-2000:]}")
    return predicted, int(done.stdout)


def measured(case: Case) -> int:
    """Bytes that two steps take at most, beyond what the process takes before the model is made."""
    train(Case("tutorial", 1, 8, dtype=case.dtype))  # loads what computes, and its buffers
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident set starts anew
    before = resident("VmRSS")
    train(case)
    return resident("VmHWM") - before


def train(case: Case) -> None:
    """Two steps: only the second has the optimizer's memory from its beginning."""
    page = read(case.spec, list(case.sets))
    model = build(page)
    checkpointing = activation_checkpointing if case.activation_checkpointing else None
    model = transformed(model, activation_checkpointing=checkpointing)
    optimizer = part("optimizer", "adamw", lr=1e-4).make(model)
    placement = Placement(torch.device("cpu"), getattr(torch, case.dtype))
    transform = OptimizerInBackward(optimizer) if case.optimizer_in_backward else None
    model = transformed(model, optimizer_in_backward=transform)
    max_grad_norm = None if case.optimizer_in_backward else 1.0
    step = Step(model, part("objective", "causal_lm"), optimizer, placement, max_grad_norm, transform)
    for _ in range(2):
        step([Batch(torch.randint(page.model.vocab_size, (case.batch, case.seq + 1)), None)], 1.0)


def part(family: str, name: str, **options: Any) -> Any:
    """A part from the registry."""
    found = core.get(family, name)
    return found(found.Options(**options))


def resident(field: str) -> int:
    """Bytes of memory of this process that are in use: now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="Specs whose name holds this.")
    parser.add_argument("--bfloat16", action="store_true", help="Multiply in bfloat16, as `kit train` may.")
    args = parser.parse_args()
    if args.child:
        print(measured(Case(*json.loads(args.child))))
        return
    print(f"{'spec':<36} {'rows x tokens':>14} {'predicted':>12} {'measured':>12} {'off by':>8}")
    for case in CASES:
        if args.only in case.spec:
            predicted, found = compare(case._replace(dtype="bfloat16") if args.bfloat16 else case)
            name = f"{case.spec}{', narrow' if case.sets else ''}"
            name += ", checkpointing" if case.activation_checkpointing else ""
            name += ", in backward" if case.optimizer_in_backward else ""
            ratio = predicted / found - 1
            shape = f"{case.batch} x {case.seq}"
            print(f"{name:<36} {shape:>14} {size(predicted):>12} {size(found):>12} {ratio:>+8.1%}", flush=True)


if __name__ == "__main__":
    main()
