"""The table of performance, measured on this machine: `make bench`, or `python -m tests.benchmarks.suite`.

Runs `kit bench` on the specs in `specs/` against every peer that is installed (`pip install -e '.[bench]'`), and
writes docs/reference/performance.md; with `--device cuda` another table, into docs/reference/performance-gpu.md.
`--only TEXT` measures what has TEXT in its title, and puts it in the place of what the spec of the same day says.
Takes about forty minutes on two cores; a quiet machine gives quieter figures, and ratios are what counts.
"""

import argparse
import datetime
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from transformer_kit.bench.peers import INT8, LEAN, PEERS
from transformer_kit.bench.run import Result, compare
from transformer_kit.bench.show import markdown, text
from transformer_kit.bench.work import Setting

HERE = Path(__file__).parent
PAGES = HERE.parents[1] / "docs" / "reference"
WINDOW = ["model.layers.block.mixer.window=256", "model.max_seq_len=8200"]
OTHERS = tuple(name for name in PEERS if name not in (INT8, LEAN))


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    work: str
    spec: str
    batch: int
    seq: int
    new: int = 32
    rounds: int = 7
    sets: tuple[str, ...] = ()
    peers: tuple[str, ...] = OTHERS
    compile: bool = False

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.work} {self.spec} {self.batch}x{self.seq}{' compiled' if self.compile else ''}"


CPU = [
    Entry("train", "gpt2-tiny", 8, 256, rounds=15),
    Entry("train", "gpt2-small", 8, 256),
    Entry("train", "llama-small", 8, 256),
    Entry("train", "gpt2-124m", 2, 512, rounds=3),
    Entry("train", "llama-124m", 2, 512, rounds=3),
    Entry("prefill", "gpt2-124m", 1, 512),
    Entry("prefill", "llama-124m", 1, 512),
    Entry("decode", "llama-124m", 1, 64, 128, 5, peers=(*OTHERS, INT8)),
    *(Entry("decode", "llama-124m", rows, 64, 128, 3) for rows in (8, 32)),
    *(Entry("decode", "llama-small", 1, seq, 128, 5, tuple(WINDOW), ()) for seq in (1024, 8000)),
    *(
        Entry("memory", spec, rows, length, sets=sets, peers=(*OTHERS, LEAN))
        for spec, sets in (("gpt2-124m", ()), ("llama-124m", ("model.vocab_size=128256",)))
        for rows, length in ((2, 512), (4, 1024))
    ),
]
GPU = [
    Entry("train", "llama-1b", 8, 2048, rounds=5, compile=True),
    Entry("train", "llama-1b", 8, 2048, rounds=3),
    Entry("prefill", "llama-1b", 1, 1536),
    *(
        Entry("decode", "llama-1b", rows, 64, 128, 3, peers=("plain", "transformers"), compile=fast)
        for fast in (True, False)
        for rows in (1, 8, 32)
    ),
    Entry("memory", "llama-1b", 4, 2048),
]


def main() -> int:
    """Measure and write; the number to exit with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    table, dtype, name = {"cpu": (CPU, torch.float32, "performance"), "cuda": (GPU, torch.bfloat16, "performance-gpu")}[
        args.device
    ]
    page, draft = PAGES / f"{name}.md", PAGES / f"{name}.draft"  # the draft is left when a run is cut short
    results: list[Result] = []
    for place, entry in enumerate(table):
        if args.only not in entry.title:
            continue
        results.append(_measure(entry, torch.device(args.device), dtype, args.threads))
        if args.only:
            _put(page, results[-1], place, len(table))
        else:
            draft.write_text("\n".join(_page(results)), "utf-8")
    if not args.only:
        os.replace(draft, page)
    return 0


def _put(page: Path, result: Result, place: int, count: int) -> None:
    """Put a result in its place on the spec, if what else is there was measured in the same way and on the same day."""
    head, *before = page.read_text("utf-8").split("\n### ")
    fresh, anew = "\n".join(_page([result])).split("\n### ")
    if head != fresh or len(before) != count:
        sys.exit(f"{page.name} was measured otherwise, or on another day: measure all, without --only")
    before[place] = anew
    page.write_text("\n### ".join([head, *before]), "utf-8")


def _measure(entry: Entry, device: torch.device, dtype: torch.dtype, threads: int) -> Result:
    setting = Setting(entry.batch, entry.seq, entry.new, device, dtype, entry.rounds, entry.compile)
    page = HERE / "specs" / f"{entry.spec}.yaml"
    result = compare(entry.work, str(page), entry.sets, setting, entry.peers, threads)
    result.spec = " ".join([entry.spec, *entry.sets, *(["compiled"] if entry.compile else [])])
    sys.stdout.write(f"{text(result)}\n\n")
    sys.stdout.flush()
    return result


def _page(results: list[Result]) -> Iterator[str]:
    first = results[0]
    yield "<!-- Written by `python -m tests.benchmarks.suite`; do not edit. -->"
    yield "# Performance\n" if first.device == "cpu" else "# Performance on a GPU\n"
    yield (
        f"Measured on {datetime.date.today():%d %B %Y} on {first.machine}, {first.dtype}, "
        f"torch {torch.__version__.partition('+')[0]}. {_order(first)} The kit's trains as `kit train` "
        "does, which [keeps what is freed](../explanation/speed.md#training). `kit / this` is the kit's "
        "median divided by that of the line, so below 1 the kit is faster or smaller. `of the limit` is the least time "
        "that the arithmetic, or reading the weights once, can take on this machine, divided by the time it took; how "
        "fast it multiplies and reads is measured before every round, and the median of the rounds is told. Memory is "
        "the peak of the process beyond what it held before the model, where all that is freed is given back. `plain` "
        "and `tutorial` are modules written by hand for this purpose, in `transformer_kit/bench/`; `int8` is the kit "
        "where it [rounds weights to 8 bits](../explanation/speed.md#decoding), and reads less than the limit counts; "
        "`lean` is the kit with `hardware.activation_checkpointing` and `hardware.optimizer_in_backward`. "
        "Measure your own: `kit bench --help`.\n"
    )
    for result in results:
        yield markdown(result) + "\n"


def _order(result: Result) -> str:
    turns = "they take turns" if result.device == "cpu" else "one begins when another has ended"
    return f"Each candidate has a process of its own; {turns}."


if __name__ == "__main__":
    sys.exit(main())
