"""The measured work: a training step, a prompt, or decoding token by token."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from transformer_kit.bench.candidate import Candidate
from transformer_kit.bench.timing import Timed, clock
from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward
from transformer_kit.transform.pipeline import transformed


@dataclass(frozen=True)
class Setting:
    """Settings of a measurement, the same for all candidates."""

    batch: int
    seq: int
    """Tokens of a training sequence, or of a prompt."""
    new: int
    """Tokens to generate in a round of decoding."""
    device: torch.device
    dtype: torch.dtype
    rounds: int
    compile: bool = False


def train(candidate: Candidate, setting: Setting) -> Timed:
    """One optimizer step on random tokens: forward, backward, clipping where gradients are kept, AdamW."""
    module = _placed(candidate, setting, torch.float32).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    if candidate.optimizer_in_backward:
        transformed(module, optimizer_in_backward=OptimizerInBackward(optimizer))
    mixed = setting.dtype != torch.float32
    if setting.compile:
        _compile(candidate)

    def step(turn: int) -> float:
        tokens, targets = _tokens(candidate, setting, turn), _tokens(candidate, setting, turn + 1000)
        begin = clock(setting.device)
        with torch.autocast(setting.device.type, setting.dtype, mixed, candidate.cached):
            loss = candidate.loss(tokens, targets)
        loss.backward()
        if not candidate.optimizer_in_backward:
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return clock(setting.device) - begin

    return step


def prefill(candidate: Candidate, setting: Setting) -> Timed:
    """Reading a prompt."""
    _placed(candidate, setting, setting.dtype).eval()
    if setting.compile:
        _compile(candidate)

    def read(turn: int) -> float:
        tokens = _tokens(candidate, setting, turn)
        begin = clock(setting.device)
        with torch.inference_mode():
            candidate.prefill(tokens)
        return clock(setting.device) - begin

    return read


def decode(candidate: Candidate, setting: Setting) -> Timed:
    """Decoding of `new` tokens for each row after a prompt.

    The time excludes the prompt with its first token, and preparation that a candidate does once for many prompts.
    """
    _placed(candidate, setting, setting.dtype).eval()
    written = candidate.decode
    if setting.compile and candidate.compiled is not None:
        written = candidate.compiled
    elif setting.compile:
        _compile(candidate)

    def write(turn: int) -> float:
        with torch.inference_mode():
            steps = written(_tokens(candidate, setting, turn), setting.new + 1)
            next(steps)
            begin = clock(setting.device)
            for _ in steps:
                pass
            return clock(setting.device) - begin

    return write


WORK: Mapping[str, Callable[[Candidate, Setting], Timed]] = {"train": train, "prefill": prefill, "decode": decode}


def _placed(candidate: Candidate, setting: Setting, dtype: torch.dtype) -> Any:
    """The module on its device, with small weights: denormal or huge numbers may be slow."""
    module = candidate.module.to(device=setting.device, dtype=dtype)
    draw = torch.Generator(setting.device).manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.02, generator=draw)
    return module


def _compile(candidate: Candidate) -> None:
    """Compile the repeated layers: each module of the longest list of modules."""
    lists = [m for m in candidate.module.modules() if isinstance(m, nn.ModuleList)]
    for module in max(lists, key=len):
        module.compile()


def _tokens(candidate: Candidate, setting: Setting, turn: int) -> torch.Tensor:
    """Random ids (B, T), the same for every candidate."""
    draw = torch.Generator().manual_seed(turn + 1_000_000)
    return torch.randint(candidate.vocab, (setting.batch, setting.seq), generator=draw).to(setting.device)
