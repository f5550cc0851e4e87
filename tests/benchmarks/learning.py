"""What each part learns: `python -m tests.benchmarks.learning`, for docs/reference/learning.md.

Each part that takes part in learning is swapped into the page `quickstart` at its default options and trained for its
300 steps with three seeds, each run in one thread. What is measured already is skipped, so the command can be stopped
and started again. `--only TEXT` measures parts whose `family/name` has TEXT in it; `--processes 2` runs two at a time.
`python -m docs.generate` makes the page of the results.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from docs.examples import BASE, places
from docs.learning import FAMILIES, RESULTS, measurements
from registry import core
from transformer_kit import machine
from transformer_kit.spec import files, yaml
from transformer_kit.spec.read import assign
from transformer_kit.spec.schema import RunSpec
from transformer_kit.spec.tree import merge

SEEDS = (0, 1, 2)
SMALLER = """
model:
  d_model: 96
  layers: {block: {ffn: {d_ff: 256}}}
"""
FITTED = {"scaling/longrope": ["model.position.fraction=0.5"], "block": ["model.layers.block.ffn.d_ff=256"]}
"""Settings for one part or one family: factors for 4 pairs of channels, and the narrower ffn that a block holds."""
SETTINGS = (
    *("train.batch_size=4", "train.seq_len=64", "evaluate.every=300", "evaluate.batches=64"),
    *("checkpoint.every=300", "sample=null", "hardware.device=cpu", "hardware.precision=float32"),
    "hardware.peak_tflops=1.0",
)
"""With `SMALLER` what differs from the page for all parts alike: half its width, 256 tokens a step in place of 4096."""


def main() -> int:
    """Measure what is not measured yet; the number to exit with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results = measurements()
    with ProcessPoolExecutor(args.processes, get_context("spawn"), _one_thread) as pool:
        running: dict[Future[float | str], str] = {}
        for name, seed, text in _runs(args.only):
            key = page(name, text, seed).hash
            results["parts"].setdefault(name, {})[str(seed)] = key
            if key not in results["runs"] and key not in running.values():
                running[pool.submit(loss, name, text, seed)] = key
        for done in as_completed(running):
            results["runs"][running[done]] = done.result()
            _write(results)
            sys.stdout.write(f"{len(results['runs'])} {running[done][:8]} {done.result()}\n")
            sys.stdout.flush()
    _write(results)
    return 0


def _runs(only: str) -> Iterator[tuple[str, int, str]]:
    """Part, seed, and the YAML that puts the part into the page; all parts with one seed first."""
    where = places()
    for seed in SEEDS:
        for family in FAMILIES:
            for name in core.names(family):
                if only in f"{family}/{name}":
                    yield f"{family}/{name}", seed, where[family].example(name)


def page(part: str, text: str, seed: int) -> RunSpec:
    """The page with a part in it, put there by `text`."""
    base, _ = files.page(files.locate(BASE))
    for change in (SMALLER, text):
        value, _ = yaml.parse(change, "part")
        base = merge(base, value)
    fitted = (*FITTED.get(part, ()), *FITTED.get(part.partition("/")[0], ()))
    for setting in (*SETTINGS, *fitted, f"train.seed={seed}"):
        assign(base, setting)
    return RunSpec.of(base)


def loss(part: str, text: str, seed: int) -> float | str:
    """The validation loss after the last step, in nats for each byte; why there is none, in words."""
    from transformer_kit.train.launch import run

    with tempfile.TemporaryDirectory() as folder:
        try:
            found = run(page(part, text, seed), Path(folder) / "run").validation_loss
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]:.200}"
    return "no validation" if found is None else round(found, 4)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _write(results: dict[str, Any]) -> None:
    import torch

    results |= {"date": f"{datetime.date.today():%d %B %Y}", "machine": machine.name()}
    results |= {"torch": torch.__version__.partition("+")[0], "settings": list(SETTINGS)}
    draft = RESULTS.with_suffix(".draft")
    draft.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    draft.replace(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
