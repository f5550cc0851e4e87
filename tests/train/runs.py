"""Small real runs: a tiny model with dropout, what it says and writes, and the process that a test may kill."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import torch

from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import Plan, Progress, Silent, checkpoint, run
from transformer_kit.train.transfer import Transfer

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "then",
    "sleeps",
    "until",
    "morning",
    "comes",
    "again",
]


def page(corpus: Path, **changes: Any) -> dict[str, Any]:
    """A run config, with `changes` to its top-level keys; mappings are merged one level deep."""
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": {"type": "mlp", "d_ff": 32}}
    base: dict[str, Any] = {
        "model": {
            "vocab_size": 257,
            "d_model": 16,
            "max_seq_len": 16,
            "dropout": 0.2,
            "position": "learned",
            "layers": {"count": 2, "block": block},
        },
        "data": {"type": "text", "paths": [str(corpus)]},
        "optimizer": {"type": "adamw", "lr": 0.003},
        "schedule": {"type": "cosine", "warmup": 2},
        "train": {"steps": 8, "batch_size": 2, "gradient_accumulation": 2, "validation": 0.2, "seed": 7},
        "evaluate": {"every": 4, "batches": 2},
        "checkpoint": {"every": 3, "keep": 2},
        "hardware": {"device": "cpu", "peak_tflops": 0.1},
    }
    for key, value in changes.items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) and "type" not in value else value
    return base


class Recorder(Silent):
    """Remembers what a run says."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.transfers: list[Transfer] = []
        self.plans: list[Plan] = []
        self.seen: list[Progress] = []
        self.evaluations: list[tuple[int, float, float]] = []
        self.samples: list[tuple[int, str]] = []
        self.checkpoints: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def transfer(self, transfer: Transfer) -> None:
        self.transfers.append(transfer)

    def begin(self, plan: Plan) -> None:
        self.plans.append(plan)

    def progress(self, progress: Progress) -> None:
        self.seen.append(progress)

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None:
        self.evaluations.append((step, loss, bits_per_byte))

    def sample(self, step: int, text: str) -> None:
        self.samples.append((step, text))

    def checkpoint(self, step: int, folder: Path) -> None:
        self.checkpoints.append(step)


def records(folder: Path) -> list[dict[str, float]]:
    """What a run wrote down, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "mfu")} for line in lines]


def train_in_child(page: dict[str, Any], out: str, die_at: int | None = None) -> None:
    """What a killable process does: train, or go on if there is something to go on with.

    `die_at` kills it from inside, at that many files brought to disk: in the middle of a checkpoint.
    """
    torch.set_num_threads(1)
    if die_at is not None:
        _die_in_checkpoint(die_at)
    run(RunSpec.of(page), out, resume=(Path(out) / "run.yaml").exists())


def train_on_small_disk(page: dict[str, Any], out: str, limit: int) -> None:
    """As `train_in_child`, where no file may grow beyond `limit` bytes; the error's text goes to `out`.error."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run(RunSpec.of(page), out, resume=(Path(out) / "run.yaml").exists())
    except Exception as error:
        Path(f"{out}.error").write_text(f"{type(error).__name__}: {error}")


def _die_in_checkpoint(at: int) -> None:
    sync, calls = checkpoint._sync, 0

    def counting(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    checkpoint._sync = counting
