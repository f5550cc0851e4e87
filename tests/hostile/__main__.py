"""Tries hostile input at random, and says what ended in no error of the kit.

    python -m tests.hostile --cases 5000 --seed 1

Cases run in processes of their own, each with bounds on time and memory. A finding is tried again alone by
`python -m tests.hostile --only KIND SEED`.
"""

import argparse
import ast
import selectors
import subprocess
import sys
import time
from collections import Counter

PATIENCE = 600.0
"""Seconds by the clock after which a process is taken for hung; one that computes is ended before, by its own time."""


class Worker:
    """A process that tries cases, made anew when it dies."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, seed: int) -> tuple[str, str]:
        """How a case ended, and what is wrong with that; nothing when empty."""
        if self.process is None:
            command = [sys.executable, "-m", "tests.hostile.worker"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{kind} {seed}\n")
        stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            ready = selector.select(PATIENCE)
        line = stdout.readline() if ready else ""
        if not line:
            self.close()
            return "fault", "the process was killed, or ended by itself" if ready else f"hung for {PATIENCE:.0f} s"
        ended, _, finding = ast.literal_eval(line).partition("\t")
        return ended, finding

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            try:
                self.process.communicate(timeout=10)  # it ends where its questions end, and takes its folders away
            except (subprocess.TimeoutExpired, BrokenPipeError):
                self.process.kill()
                self.process.communicate()
        self.process = None


def tried(cases: list[tuple[str, int]]) -> tuple[Counter[str], list[str]]:
    """How many ended in which way, and the findings."""
    worker, ends, findings = Worker(), Counter[str](), []
    try:
        for number, (kind, seed) in enumerate(cases):
            if number and not number % 500:
                print(f"{number} cases", file=sys.stderr, flush=True)
            ended, finding = worker.ask(kind, seed)
            ends[f"{kind}: {ended}"] += 1
            if finding:
                findings.append(f"--only {kind} {seed}: {finding}")
                print(findings[-1], flush=True)
    finally:
        worker.close()
    return ends, findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="where they start")
    parser.add_argument(
        "--kinds", default="config spec declaration folder kit run", help="which, often as they are named"
    )
    parser.add_argument("--only", nargs=2, metavar=("KIND", "SEED"), help="try one case")
    args = parser.parse_args()
    kinds = args.kinds.split()
    cases = [(kinds[i % len(kinds)], args.seed * 1_000_000 + i) for i in range(args.cases)]
    if args.only:
        cases = [(args.only[0], int(args.only[1]))]
    began = time.time()
    ends, findings = tried(cases)
    for way, times in sorted(ends.items()):
        print(f"{times:6} {way}")
    print(f"{len(cases)} cases in {time.time() - began:.0f} s, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
