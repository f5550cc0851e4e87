"""A small sample of hostile input; the long run is `python -m tests.hostile`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import cases, worker
from tests.hostile.__main__ import Worker, tried
from transformer_kit.spec.errors import SpecError

TIMES = {"config": 20, "spec": 8, "declaration": 16, "folder": 5, "kit": 3, "run": 1}
MENDED = [("run", 11000575), ("declaration", 11001422)]
"""What the long run has found."""


def test_a_sample() -> None:
    ends, findings = tried([*MENDED, *((kind, i) for kind, times in TIMES.items() for i in range(times))])
    assert not findings
    assert len([end for end in ends if end.endswith(": ok")]) > 2  # not everything is refused at the door


def hang(folder: Path) -> None:
    while True:
        pass


def fill(folder: Path) -> None:
    bytearray(2**31)


def stumble(folder: Path) -> None:
    raise KeyError("a")


def litter(folder: Path) -> None:
    (folder / ".draft").mkdir()
    raise SpecError([])


def dump(folder: Path) -> None:
    raise UnicodeDecodeError("utf-8", b"", 0, 1, "a ValueError that is not the kit's")


@pytest.mark.parametrize(
    ("fault", "told"),
    [(hang, "_TooLong"), (fill, "MemoryError"), (stumble, "KeyError"), (litter, "left"), (dump, "UnicodeDecodeError")],
)
def test_what_is_found(fault: Callable[[Path], None], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults on purpose, each found by its bound."""

    def kind(chance: Any, folder: Path) -> Callable[[], None]:
        return lambda: fault(folder)

    monkeypatch.setitem(cases.KINDS, "fault", kind)
    monkeypatch.setattr(worker, "SECONDS", 2.0)
    assert told in str(worker.attempt("fault", 0)[1])


def test_a_process_that_dies_is_found_and_replaced() -> None:
    asked = Worker()
    try:
        asked.process = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert asked.ask("spec", 0) == ("fault", "the process was killed, or ended by itself")
        assert asked.ask("spec", 0)[1] == ""
    finally:
        asked.close()
