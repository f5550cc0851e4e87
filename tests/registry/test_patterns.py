"""Globs: what Python's own finds, and nothing left out in silence."""

import glob
import os
import random
from pathlib import Path, PurePath

import pytest

from registry.patterns import matching

NAMES = ("a", "b", "a1", ".h", "[x]", "ab.txt", "c.txt", ".d.txt")
PATTERNS = ("*", "**", "a", "a*", "?", "[ab]", "[!a]*", "*.txt", ".*", "b", ".h", "[[]x]", "..")


@pytest.mark.parametrize("seed", range(30))
def test_the_same_files_as_pythons_glob(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(12):
        path = tmp_path / "root" / Path(*(draw.choice(NAMES) for _ in range(draw.randint(1, 3))))
        if not any(p.is_file() for p in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "root").mkdir(exist_ok=True)
    for _ in range(40):
        pattern = "/".join(draw.choice(PATTERNS) for _ in range(draw.randint(1, 4)))
        expected = glob.glob(pattern, root_dir=tmp_path / "root", recursive=True)
        files = {os.path.realpath(tmp_path / "root" / p) for p in expected if (tmp_path / "root" / p).is_file()}
        found = matching(PurePath(pattern), tmp_path / "root")
        assert {os.path.realpath(p) for p in found} == files, pattern
        assert len(found) == len(files)
        assert found == sorted(found, key=str)


def test_folders_that_link_to_each_other_are_looked_into_once(tmp_path: Path) -> None:
    folders = [tmp_path / f"d{i}" for i in range(12)]
    for folder in folders:
        folder.mkdir()
        (folder / "x").touch()
        for other in folders:
            (folder / f"to-{other.name}").symlink_to(other)
    assert len(matching(PurePath("**/x"), tmp_path)) == len(folders)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(0)
    try:
        with pytest.raises(PermissionError):
            matching(PurePath("**/*"), tmp_path)
    finally:
        (tmp_path / "shut").chmod(0o700)
