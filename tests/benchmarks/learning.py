"""What each part learns: `python -m tests.benchmarks.learning`, for docs/reference/learning.md.

Each part that takes part in learning is swapped into the spec `quickstart` at its default options and trained for its
300 steps with three seeds, each run in one thread. What is measured already is skipped, so the command can be stopped
and started again. `--only TEXT` measures parts whose `family/name` has TEXT in it; `--processes 2` runs two at a time.
`python -m docs.generate` makes the spec of the results.
"""

import argparse
import datetime
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from docs.examples import BASE, places
from docs.learning import FAMILIES, RESULTS, measurements
from registry import core
from transformer_kit import machine
from transformer_kit.spec import files, yaml
from transformer_kit.spec.read import assign
from transformer_kit.spec.schema import RunSpec
from transformer_kit.spec.tree import merge

SEEDS = (0, 1, 2)
THREAD = {"OMP_NUM_THREADS": "1"}
SMALLER = """
model:
  d_model: 96
  layers: {block: {ffn: {d_ff: 256}}}
"""
FITTED = {
    "scaling/longrope": ["model.position.partial_rotary_factor=0.5"],
    "block": ["model.layers.block.ffn.d_ff=256"],
}
"""Settings for one part or one family: factors for 4 pairs of channels, and the narrower ffn that a block holds."""
SETTINGS = (
    *("train.batch_size=4", "train.seq_len=64", "evaluate.every=300", "evaluate.batches=64"),
    *("checkpoint.every=300", "sample=null", "hardware.device=cpu", "hardware.precision=float32"),
    "hardware.peak_tflops=1.0",
)
"""With `SMALLER` what differs from the spec for all parts alike: half its width, 256 tokens a step in place of 4096."""


def main() -> int:
    """Measure what is not measured yet; the number to exit with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--share", type=int, metavar="I", help="measure every N-th run from the I-th on")
    args = parser.parse_args()
    if args.processes == 1 or args.share is not None:
        _measure(args.only, args.share or 0, args.processes)
        return 0
    command = [sys.executable, "-m", "tests.benchmarks.learning", *sys.argv[1:]]
    started = [subprocess.Popen([*command, "--share", str(i)], env=os.environ | THREAD) for i in range(args.processes)]
    return max(process.wait() for process in started)


def _measure(only: str, share: int, processes: int) -> None:
    """Measure this process's share of the runs, and write each result down at once."""
    torch.set_num_threads(1)
    runs: dict[str, tuple[str, str, int]] = {}
    parts: dict[str, dict[str, str]] = {}
    for part, seed, text in _runs(only):
        key = page(part, text, seed).hash
        parts.setdefault(part, {})[str(seed)] = key
        runs.setdefault(key, (part, text, seed))
    _note(parts, {})
    for key, (part, text, seed) in list(runs.items())[share::processes]:
        if key not in measurements()["runs"]:
            found = loss(part, text, seed)
            _note({}, {key: found})
            sys.stdout.write(f"{part} with seed {seed}: {found}\n")
            sys.stdout.flush()


def _runs(only: str) -> Iterator[tuple[str, int, str]]:
    """Part, seed, and the YAML that puts the part into the spec; all parts with one seed first."""
    where = places()
    for seed in SEEDS:
        for family in FAMILIES:
            for name in core.names(family):
                if only in f"{family}/{name}":
                    yield f"{family}/{name}", seed, where[family].example(name)


def page(part: str, text: str, seed: int) -> RunSpec:
    """The spec with a part in it, put there by `text`."""
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
            result = run(page(part, text, seed), Path(folder) / "run")
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]:.200}"
    if result.interrupted or result.validation_loss is None:
        sys.exit(f"{part} was interrupted; start again, and what is measured already is skipped")
    return round(result.validation_loss, 4)


def _note(parts: dict[str, dict[str, str]], runs: dict[str, float | str]) -> None:
    """Add to the file of results, to which other processes add too."""
    with Path(tempfile.gettempdir(), "learning.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = measurements()
        known = results["parts"] | parts
        asked = {key for keys in known.values() for key in keys.values()}
        kept = {key: value for key, value in (results["runs"] | runs).items() if key in asked}
        results = {"parts": known, "runs": kept, "settings": list(SETTINGS)}
        results |= {"date": f"{datetime.date.today():%d %B %Y}", "machine": machine.name()}
        results |= {"torch": torch.__version__.partition("+")[0]}
        draft = RESULTS.with_suffix(".draft")
        draft.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
        draft.replace(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
