"""Files that a user names: where a path leads, and why what lies there is not the file that was meant."""

import re
from pathlib import Path

LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\r?\n(?:ext-.*\r?\n)*oid sha256:[0-9a-f]{64}\r?\n.*\s*")
ANNEX = re.compile(rb"/annex/objects/\S+\s*")
POINTER = 1024
"""Bytes that a pointer has at most."""
STARTS = {
    b"PAR1": "is a Parquet file; write its text as JSON lines first",
    b"PK\x03\x04": "is a zip archive; `unzip` unpacks it",
    b"\x1f\x8b": "is compressed by gzip; `gunzip` unpacks it",
    b"(\xb5/\xfd": "is compressed by zstd; `unzstd` unpacks it",
    b"\xfd7zXZ\0": "is compressed by xz; `unxz` unpacks it",
    b"BZh": "is compressed by bzip2; `bunzip2` unpacks it",
    b"\xff\xfe\0\0": "is UTF-32; `iconv -f UTF-32 -t UTF-8` converts it",
    b"\xff\xfe": "is UTF-16; `iconv -f UTF-16 -t UTF-8` converts it",
    b"\xfe\xff": "is UTF-16; `iconv -f UTF-16 -t UTF-8` converts it",
}
"""First bytes of files that are no plain text, and what to do about them."""
LONGEST = max(map(len, STARTS))


def located(path: str, base: Path) -> Path:
    """Where `path` leads from the folder `base`; `~` is a home folder where there is such a user, else a name."""
    try:
        return base / Path(path).expanduser()
    except RuntimeError:
        return base / path


def absent(path: Path) -> str:
    """Why there is nothing at `path`."""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which is not there"
    return "no such file"


def pointer(content: bytes) -> str | None:
    """What to do where `content` only stands for a file that lies elsewhere; None where it is a file's own."""
    if len(content) <= POINTER and LFS.fullmatch(content):
        return "is a Git LFS pointer, not the file itself; `git lfs pull` fetches it"
    if len(content) <= POINTER and ANNEX.fullmatch(content):
        return "is a git-annex pointer, not the file itself; `git annex get` fetches it"
    return None


def pointer_at(path: Path) -> str | None:
    """As `pointer`, of the file at `path`; None for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return pointer(file.read(POINTER + 1))
    except OSError:
        return None


def other_kind(start: bytes) -> str | None:
    """What a file is that begins with the bytes `start` and should be UTF-8; None where nothing is known of it."""
    return next((what for mark, what in STARTS.items() if start.startswith(mark)), None)
