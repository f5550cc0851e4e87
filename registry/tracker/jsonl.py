"""Metrics as JSON lines: one object per step, in `metrics.jsonl`."""

import errno
import json
import os
from pathlib import Path
from typing import BinaryIO

from registry import untrusted
from registry.contracts import Tracker
from registry.core import register
from registry.options import Options


@register
class Jsonl(Tracker):
    """Appends `{"step": 1, "loss": 5.54, ...}` to `metrics.jsonl`, a line at a time."""

    def __init__(self, options: Options, folder: Path) -> None:
        super().__init__(options, folder)
        self.path = folder / "metrics.jsonl"
        self._file: BinaryIO | None = None

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line, and hand it to the operating system. Raises OSError when it cannot be written."""
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)  # nothing is held back for `close` to fail on
        line = (json.dumps({"step": step, **values}) + "\n").encode()
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "no space is left for the whole line")

    def rewind(self, step: int) -> None:
        """Keep the lines up to `step`; what came later, and a line that a crash cut short, go."""
        self.close()
        if not self.path.exists():
            return
        draft = self.path.with_name(f".{self.path.name}.draft")
        with self.path.open(encoding="utf-8", errors="replace") as lines, draft.open("w", encoding="utf-8") as file:
            file.writelines(line.rstrip("\n") + "\n" for line in lines if _step(line) <= step)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _step(line: str) -> float:
    """The step that a line is about; infinity for what is no line of ours."""
    try:
        record = untrusted.parsed(line)
    except ValueError:
        return float("inf")
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else float("inf")
