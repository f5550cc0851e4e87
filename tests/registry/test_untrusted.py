"""Files that others wrote: read where they are plain, small and shallow, refused in words where they are not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.untrusted import MAX_DEPTH, FileError, check_links, mapping, text, value


def long(path: Path) -> None:
    path.write_bytes(b"1" * 101)


def missing(path: Path) -> None:
    pass


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "cannot be read: is a folder"),
    "a pipe": (os.mkfifo, "must be a regular file"),
    "a device": (lambda p: p.symlink_to("/dev/zero"), "must be a regular file"),
    "missing": (missing, "No such file"),
    "a link to itself": (lambda p: p.symlink_to(p), "cannot be read: "),
    "long": (long, "is too large: at most 100 bytes"),
    "other bytes": (lambda p: p.write_bytes(b"ab\xff"), "not UTF-8 text: byte 2: invalid start byte"),
}


@pytest.mark.parametrize("what", FILES)
def test_what_is_no_text_file(what: str, tmp_path: Path) -> None:
    make, told = FILES[what]
    make(tmp_path / "a.json")
    with pytest.raises(FileError) as caught:
        text(tmp_path / "a.json", 100)
    assert caught.value.path == tmp_path / "a.json"
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["\0", "x" * 300, "\ud800"])
def test_what_is_no_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        text(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "cannot be read: Expecting value"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), f"nested too deeply: at most {MAX_DEPTH} levels"),
        ('{"a":' * 100_000, f"nested too deeply: at most {MAX_DEPTH} levels"),
        ('["\\ud83d\\ude00", {"\\udC00": 1}]', "holds a lone surrogate, half a character: U+DC00"),
        ("1" * 5000, "cannot be read: Exceeds the limit"),
    ],
)
def test_what_is_no_json(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(FileError) as caught:
        value(tmp_path / "a.json")
    assert told in str(caught.value)


def test_what_can_be_read(tmp_path: Path) -> None:
    deepest = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    (tmp_path / "a.json").write_text(f'{{"\\ud83d\\ude00": {deepest[1:-1]}}}')
    assert [*mapping(tmp_path / "a.json")] == ["😀"]


def test_what_is_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(FileError, match="must be a mapping, got list"):
        mapping(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "model.safetensors", "spec.yaml"])
@pytest.mark.parametrize("target", ["../outside", "/etc/hostname", "out/outside", "nowhere/../../outside"])
def test_links_that_leave_the_folder(name: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("{}")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    (tmp_path / "in" / name).symlink_to(target)
    with pytest.raises(FileError, match="is a link that leads out of its folder"):
        check_links(tmp_path / "in")


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("b.json")
    (tmp_path / "b.json").symlink_to("a.json")
    with pytest.raises(FileError, match="is a link that leads in a circle"):
        check_links(tmp_path)


def test_links_that_stay(tmp_path: Path) -> None:
    """Inside the folder, to the blobs of the Hugging Face cache, and the folder itself; also of what is not read."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_text("{}")
    home = tmp_path / "snapshots" / "main"
    home.mkdir(parents=True)
    (home / "config.json").symlink_to("../../blobs/abc")
    (home / "other.json").symlink_to("config.json")
    (home / "README.md").symlink_to("/etc/hostname")
    (tmp_path / "folder").symlink_to(home)
    check_links(home)
    check_links(tmp_path / "folder")


def test_blobs_that_are_links(tmp_path: Path) -> None:
    (tmp_path / "blobs").symlink_to("/etc")
    home = tmp_path / "snapshots" / "main"
    home.mkdir(parents=True)
    (home / "config.json").symlink_to("../../blobs/hostname")
    with pytest.raises(FileError, match="leads out of its folder, to /etc/hostname"):
        check_links(home)
