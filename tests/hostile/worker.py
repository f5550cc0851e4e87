"""Runs cases in a process of its own, within bounds on time and memory, and says what became of each.

A case may end well or in one of the kit's own errors; everything else is a finding, and so is what it leaves behind.
"""

import gc
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

SECONDS, BYTES = 5.0, 2**30
"""Time on the processor, and memory above what the process had before, that a case may take."""

Finding = str | None


def attempt(kind: str, seed: int) -> tuple[str, Finding]:
    """How the case ended, in a word, and what is wrong with that."""
    from tests.hostile.cases import KINDS

    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        folder = Path(name)
        case = KINDS[kind](Random(f"{kind}/{seed}"), folder)
        before = _entries(folder)
        began = time.process_time()
        ended, finding = _run(case)
        took = time.process_time() - began
        left = sorted(_entries(folder) - before - {"out"}) if ended != "ok" else []
        if finding is None and took > SECONDS:
            finding = f"took {took:.1f} s"
        if finding is None and (left or (ended != "ok" and kind != "run" and (folder / "out").exists())):
            finding = f"left {left or ['out']} behind"
    return ended, finding


def _run(case: Any) -> tuple[str, Finding]:
    gc.collect()  # which takes its time where much was imported
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    last = int(used + 4 * SECONDS) + 1  # then the system ends the process, whatever library it is in
    resource.setrlimit(resource.RLIMIT_CPU, (last, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    try:
        with _memory():
            case()
    except BaseException as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if _is_own(error):
            return type(error).__name__, None
        where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
        return "fault", f"{type(error).__name__}: {str(error)[:200]} ({' > '.join(where)})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    return "ok", None


class _TooLong(BaseException):
    """The case takes too long."""


def _too_long(*args: Any) -> None:
    raise _TooLong(f"more than {2 * SECONDS:.0f} s")


class _memory:
    """Inside, memory is bounded."""

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_DATA)
        text = Path("/proc/self/status").read_text()
        now = 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmData")))
        resource.setrlimit(resource.RLIMIT_DATA, (now + BYTES, self.before[1]))

    def __exit__(self, *args: object) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self.before)


def _is_own(error: BaseException) -> bool:
    """One of the kit's errors, or a ValueError that the kit itself raises."""
    from registry.core import RegistryError
    from registry.untrusted import FileError
    from transformer_kit.convert.errors import ConvertError
    from transformer_kit.model.folder import FolderError
    from transformer_kit.spec.errors import SpecError
    from transformer_kit.train import TrainError

    if len(str(error)) > 400_000:
        return False
    if isinstance(error, (RegistryError, FileError, ConvertError, FolderError, SpecError, TrainError)):
        return True
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    return type(error) is ValueError and ("/transformer_kit/" in raised or "/registry/" in raised)


def _entries(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.iterdir()}


def serve() -> None:
    """Read `kind seed` from each line of stdin, answer with `ended`, a tab, and the finding."""
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a case prints must not be taken for an answer
    for line in sys.stdin:
        kind, seed = line.split()
        ended, finding = attempt(kind, int(seed))
        try:
            answers.write(ascii(f"{ended}\t{finding or ''}") + "\n")
            answers.flush()
        except BrokenPipeError:  # nobody asks any more
            return


if __name__ == "__main__":
    serve()
