"""The source code of the running interpreter's standard library: real text on every machine."""

import os
import sysconfig
import tokenize
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from registry.contracts import Dataset
from registry.core import register
from registry.dataset._shared import digest, readable
from registry.options import Positive

LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


@register
class PythonStdlib(Dataset):
    """Each module is a document, in the order of module paths. Tests and installed packages are excluded."""

    class Options(Dataset.Options):
        """Size of the corpus."""

        max_mb: Positive | None = None
        """Maximum size in megabytes, in whole files from the first (default: all)."""

    def documents(self) -> Iterator[str]:
        for file in self._files:
            with readable(file), tokenize.open(file) as source:  # heeds the coding declaration
                yield source.read()

    @property
    def fingerprint(self) -> str:
        return digest(self._files, "python_stdlib")

    @cached_property
    def _files(self) -> list[Path]:
        found = sorted(_sources(_root()))
        if not found:
            raise ValueError(f"{_root()}: this interpreter has no library source code; choose another dataset")
        if self.options.max_mb is None:
            return found
        return list(_first(found, self.options.max_mb * 1e6))


def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _sources(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = set(folders) - LEFT_OUT  # os.walk descends into this list
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _first(files: list[Path], size: float) -> Iterator[Path]:
    """The first files that fit into `size`, at least one."""
    for i, file in enumerate(files):
        size -= file.stat().st_size
        if size < 0 and i:
            return
        yield file
