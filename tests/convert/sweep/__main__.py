"""The long run: `python -m tests.convert.sweep --first 0 --count 1300`. Prints what is not equal, and counts.

`--seed N` shows one configuration and what becomes of it.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

from tests.convert.sweep.draw import draw
from tests.convert.sweep.judge import Outcome, judged


def main() -> int:
    """Number to exit with: 1 where something differs or is refused for a reason that is not true."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1300, help="of those that `transformers` can compute")
    parser.add_argument("--seed", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for seed in itertools.count(asked.first) if asked.seed is None else [asked.seed]:
        outcome = _one(seed, asked.seed is not None)
        counts[outcome.kind] += 1
        if outcome.kind != "equal":
            sys.stdout.write(json.dumps({"seed": seed, "name": draw(seed).name, **vars(outcome)}) + "\n")
            sys.stdout.flush()
        if counts.total() - counts["no class"] >= asked.count:
            break
    sys.stdout.write(json.dumps(dict(counts)) + "\n")
    return int(counts["differs"] + counts["untrue"] + counts["broken"] > 0)


def _one(seed: int, show: bool) -> Outcome:
    case = draw(seed)
    if show:
        sys.stdout.write(json.dumps(case.config) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        try:
            return judged(case, Path(folder))
        except Exception as error:
            if show:
                raise
            return Outcome("broken", f"{type(error).__name__}: {error!s:.200}")


if __name__ == "__main__":
    sys.exit(main())
