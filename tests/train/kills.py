"""Kills runs at random instants while other programs keep the machine busy, resumes them, and compares final bits.

    python -m tests.train.kills --runs 10 --kills 10

Each run has a page of its own; it is killed so often, some of the times before it has saved anything, and then left to
end. Its losses, weights and optimizer state must be those of a run that nobody disturbed. Says what it did; exit code 1
where a bit differs.
"""

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.train.runs import WORDS, page, records, train_in_child
from tests.train.test_random import burn
from transformer_kit.train import checkpoint

STEPS = 60
WAYS: list[dict[str, Any]] = [
    {"train": {"gradient_accumulation": 2}},
    {"train": {"gradient_accumulation": 3}, "sample": {"every": 5, "prompt": "the ", "max_new_tokens": 4}},
    {"train": {"gradient_accumulation": 1, "max_grad_norm": None}, "hardware": {"optimizer_in_backward": True}},
    {"train": {"gradient_accumulation": 1}, "hardware": {"activation_checkpointing": True}, "evaluate": {"every": 7}},
    {"train": {"document_mask": True}, "schedule": {"type": "wsd", "warmup": 2, "decay": 20}},
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--load", type=int, default=2, help="processes that keep cores busy")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    server: Any = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.train.runs", "torch._dynamo", "matplotlib.backends.backend_agg"])
    chance, killed, wrong = random.Random(asked.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRANSFORMER_KIT_CACHE"] = f"{folder}/cache"
        corpus = Path(folder) / "text.txt"
        corpus.write_text(" ".join(WORDS[(i * i + i // 7) % len(WORDS)] for i in range(3000)), "utf-8")
        others = [server.Process(target=burn, daemon=True) for _ in range(asked.load)]
        for other in others:
            other.start()
        for i in range(asked.runs):
            wanted = _page(corpus, i)
            whole, out = Path(folder) / f"whole{i}", Path(folder) / f"out{i}"
            _start(server, wanted, whole).join()
            fell = [_kill(server, wanted, out, chance) for _ in range(asked.kills)]
            _start(server, wanted, out).join()
            other = [what for what, bits in _bits(out).items() if bits != _bits(whole)[what]]
            killed, wrong = killed + sum(step is not None for step in fell), wrong + bool(other)
            verdict = f"OTHER BITS in {', '.join(other)}" if other else "the same bits"
            print(f"run {i}: killed at steps {fell}: {verdict}", flush=True)
        for other in others:
            other.kill()
    print(f"{killed} kills in {asked.runs} runs beside {asked.load} busy processes: {wrong} runs differ")
    return 1 if wrong else 0


def _page(corpus: Path, number: int) -> dict[str, Any]:
    way = WAYS[number % len(WAYS)]
    train = {"steps": STEPS, "seed": number, **way.get("train", {})}
    made = page(corpus, **{**way, "train": train}, checkpoint={"every": 2 + number % 4})
    del made["hardware"]["peak_tflops"]  # so that the peak is measured at each start
    return made


def _start(server: Any, wanted: dict[str, Any], out: Path) -> Any:
    process = server.Process(target=train_in_child, args=(wanted, str(out)))
    process.start()
    return process


def _kill(server: Any, wanted: dict[str, Any], out: Path, chance: random.Random) -> int | None:
    """Start or resume, and kill at some instant; the steps written down by then, None where it had ended before."""
    metrics = out / "metrics.jsonl"
    process, done = _start(server, wanted, out), _lines(metrics)
    if chance.random() < 0.3:
        time.sleep(chance.random() * 2)  # mostly while it starts
    else:
        while process.is_alive() and _lines(metrics) < done + chance.randint(1, STEPS // 8):
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
    process.kill()
    process.join()
    return _lines(metrics) if process.exitcode == -9 else None


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _bits(out: Path) -> dict[str, Any]:
    """What was written down, and the bytes of weights and optimizer state, of a run that has ended."""
    last = checkpoint.path_of(out / "checkpoints", STEPS)
    # The order of a safetensors file's own notes is not fixed, so of the model's file tensors are compared.
    model = {name: tensor.numpy().tobytes() for name, tensor in load_file(out / "model/model.safetensors").items()}
    names = ("model.safetensors", "optimizer.safetensors")
    return {"metrics": records(out), "the model": model, **{name: (last / name).read_bytes() for name in names}}


if __name__ == "__main__":
    raise SystemExit(main())
