"""The run's folder, checked before the first step.

OUT/run.yaml          the spec, resolved
OUT/metrics.jsonl     one line for each step
OUT/checkpoints/      checkpoints to resume from
OUT/samples/          text generated during training
OUT/model/            the trained model, ready to load
OUT/loss.png          the loss over the steps
"""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from transformer_kit.model.folder import RUN
from transformer_kit.train.errors import OutputError

LOCK, PROBE = ".lock", ".probe"
BEGUN = re.compile(
    r"\.lock|\.probe|\.?tokenizer.*\.json.*|special_tokens_map\.json|chat_template\.jinja|generation_config\.json"
    r"|origin\.json|\.run\.yaml\.draft"
)
"""Files of a run before its spec is written; a run killed by then has no result to keep."""


class Layout:
    """Paths of a run's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = folder / RUN
        self.origin = folder / "origin.json"
        """The trained folder that a fine-tuning run started from."""
        self.metrics = folder / "metrics.jsonl"
        self.checkpoints = folder / "checkpoints"
        self.samples = folder / "samples"
        self.model = folder / "model"
        self.plot = folder / "loss.png"
        self.made: list[Path] = []
        """Folders that were created for the run, the innermost first."""


def claim(folder: Path, *, resume: bool) -> Layout:
    """The layout of a run in `folder`, created if missing. OutputError when a run cannot write there."""
    layout = Layout(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose a folder for the run")
    if resume and not layout.page.is_file():
        raise OutputError(f"{folder} holds no run to resume (no {layout.page.name}); leave --resume out to start one")
    if not resume and folder.is_dir() and not _is_free(folder):
        hint = "resume it with --resume, or choose" if layout.page.is_file() else "choose"
        raise OutputError(f"{folder} exists and is not empty; {hint} another folder")
    _check_kinds(layout)
    layout.made = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
    return layout


@contextmanager
def lock(layout: Layout) -> Iterator[None]:
    """Inside, no other process trains in the folder: it is locked while this process lives. OutputError if locked."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with writing(layout.folder):  # opening a pipe would block, and the target of a link may lie outside the folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(layout.folder / LOCK, flags, 0o644), "w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{layout.folder}: another process is training there; wait for it or stop it") from error
        if not layout.page.is_file():
            _clear(layout.folder)
        try:
            yield
        finally:
            if not layout.page.is_file():
                _clear(layout.folder)
            (layout.folder / LOCK).unlink(missing_ok=True)
            _leave(layout)


def _is_free(folder: Path) -> bool:
    """Whether the folder is empty, or holds only files of a run that was killed before its spec was written."""
    names = {path.name for path in folder.iterdir()}
    return names <= {PROBE} or (LOCK in names and all(map(BEGUN.fullmatch, names)))


def _clear(folder: Path) -> None:
    """Remove files of a run that was killed before its spec was written."""
    for path in folder.iterdir():
        if path.name != LOCK and BEGUN.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)


def _check_kinds(layout: Layout) -> None:
    """OutputError where another kind of file, such as a pipe, has the name of one of the run's files or folders."""
    files = [p for p in (layout.origin, layout.metrics, layout.plot) if os.path.lexists(p) and not p.is_file()]
    folders = [p for p in (layout.checkpoints, layout.samples) if os.path.lexists(p) and not p.is_dir()]
    for path in (*files, *folders):
        raise OutputError(f"{path} is not a {'folder' if path in folders else 'regular file'}; move it away")


def _leave(layout: Layout) -> None:
    """Remove the folders that were created for a run that failed to start."""
    for path in layout.made:
        try:
            path.rmdir()
        except OSError:  # the folder is not empty
            return


def check_space(folder: Path, checkpoint_bytes: int, keep: int) -> str | None:
    """OutputError when the disk cannot hold one checkpoint; a note when it cannot hold all that will be kept."""
    free = shutil.disk_usage(folder).free
    if free < checkpoint_bytes:
        raise OutputError(f"{folder}: a checkpoint takes {size(checkpoint_bytes)}, the disk has {size(free)} left")
    # One more checkpoint exists until the oldest is removed.
    most = (keep + 1) * checkpoint_bytes
    return f"checkpoints will take {size(most)}, the disk has {size(free)} left" if free < most else None


@contextmanager
def writing(path: Path, more: str = "") -> Iterator[None]:
    """Inside, a failed write becomes an OutputError with the path, the reason and `more`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _errno(error)
        reason = str(error) if number is None else os.strerror(number)
        full = number in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(f"{path}: cannot be written: {'the disk is full' if full else reason}{more}") from error


def _errno(error: Exception) -> int | None:
    """The system's error number; safetensors reports it only in its message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _probe(folder: Path) -> None:
    """Write a file and sync it to disk: permission bits do not show quotas and read-only mounts."""
    path = folder / PROBE
    try:
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def size(count: float) -> str:
    """Bytes in readable form: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
