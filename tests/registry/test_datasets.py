"""Datasets: what is found, in which order, and what is said about files that will not do."""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry import core
from registry.contracts import Dataset
from registry.dataset import _shared as shared
from registry.dataset import jsonl as jsonl_module
from registry.dataset import text as text_module
from registry.options import plain


def make(part: str, base: Path = Path(), **options: Any) -> Dataset:
    cls = core.get("dataset", part)
    return cls(cls.Options(**options), base)


def text(base: Path, *paths: str, **options: Any) -> list[str]:
    return list(make("text", base, paths=list(paths), **options).documents())


def jsonl(base: Path, content: str | bytes, **options: Any) -> list[str]:
    (base / "lines.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(make("jsonl", base, paths="lines.jsonl", **options).documents())


# ------------------------------------------------------------------ python_stdlib


def test_stdlib_is_source_code_in_a_fixed_order() -> None:
    dataset = make("python_stdlib", max_mb=1.0)
    documents = list(dataset.documents())
    assert documents == list(dataset.documents())
    assert sum(len(d.encode()) for d in documents) <= 1_000_000
    assert any("class ABC(" in d for d in documents)
    files = [str(p) for p in dataset._files]  # type: ignore[attr-defined]
    assert files == sorted(files)


def test_stdlib_leaves_out_tests_and_packages() -> None:
    parts = {part for p in make("python_stdlib")._files for part in p.parts}  # type: ignore[attr-defined]
    assert {"json", "asyncio"} <= parts
    assert not {"site-packages", "test", "tests", "idle_test"} & parts


def test_stdlib_has_one_file_at_least_and_knows_its_size() -> None:
    assert len(list(make("python_stdlib", max_mb=1e-6).documents())) == 1
    small, large = make("python_stdlib", max_mb=0.1), make("python_stdlib", max_mb=0.5)
    assert small.fingerprint != large.fingerprint
    assert small.fingerprint == make("python_stdlib", max_mb=0.1).fingerprint


# ------------------------------------------------------------------ text


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "deep/d.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_globs_are_sorted_and_files_taken_once(corpus: Path) -> None:
    assert text(corpus, "*.txt") == ["a.txt", "b.txt"]
    assert text(corpus, "b.txt", "*.txt") == ["b.txt", "a.txt"]
    assert text(corpus, "**/*.txt", "deep/*") == ["a.txt", "b.txt", "deep/er/c.txt", "deep/d.md"]
    assert text(Path("/nowhere"), str(corpus / "a.txt")) == ["a.txt"]
    (corpus / "odd[1].txt").write_text("odd")
    assert text(corpus, "odd[1].txt") == ["odd"]


def test_only_what_a_page_writes_is_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run [ab]", "run a", "run ?", "run *", "[home]"):
        (tmp_path / name / "t").mkdir(parents=True)
        (tmp_path / name / "t/x.txt").write_text(name)
    for name in ("run [ab]", "run ?", "run *"):
        assert text(tmp_path / name, "t/*.txt") == [name]
        assert text(tmp_path, f"{name}/*/x.txt") == [name]  # it is there as it is written
    assert text(tmp_path, "run [a]/t/*.txt") == ["run a"]
    assert text(tmp_path / "run a", "../run [[]ab]/t/*") == ["run [ab]"]
    monkeypatch.setenv("HOME", str(tmp_path / "[home]"))
    assert text(tmp_path, "~/t/*.txt") == text(tmp_path, "~/t/x.txt") == ["[home]"]
    (tmp_path / "~none.txt").write_text("a name")
    assert text(tmp_path, "~none.txt") == text(tmp_path, "~*") == ["a name"]
    with pytest.raises(ValueError, match=r"~no-such-user/x\.txt: no such file"):
        text(tmp_path, "~no-such-user/x.txt")


def test_links_are_followed_once_and_never_lost(tmp_path: Path) -> None:
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "real/deep/a.txt").write_text("a")
    (tmp_path / "latest").symlink_to("real")
    (tmp_path / "real/deep/loop").symlink_to("../..")
    assert text(tmp_path, "**/*.txt") == ["a"]
    assert text(tmp_path, "real/deep/a.txt", "latest/*/a.txt", "real/../latest/deep/a.txt") == ["a"]
    (tmp_path / "real/b.txt").symlink_to("gone.txt")
    for path in ("**/*.txt", "real/b.txt"):
        with pytest.raises(ValueError, match=r"b\.txt: is a link to gone\.txt, which is not there"):
            text(tmp_path, path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("part", ["text", "jsonl"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (POINTER, "is a Git LFS pointer, not the file itself; `git lfs pull` fetches it"),
        (POINTER.replace(b"\n", b"\r\n"), "is a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s12--3.txt\n", "is a git-annex pointer"),
        (gzip.compress(b'{"text": "x"}', mtime=0), "is compressed by gzip; `gunzip` unpacks it"),
        ('{"text": "x"}'.encode("utf-16"), "is UTF-16; `iconv -f UTF-16 -t UTF-8` converts it"),
        ("漢字".encode("utf-16"), "is UTF-16"),
    ],
)
def test_files_that_stand_for_others_are_named(tmp_path: Path, part: str, content: bytes, expected: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    dataset = make(part, tmp_path, paths="a.txt")
    assert re.search(expected, str(list(dataset.faults())))
    with pytest.raises(ValueError, match=r"a\.txt: " + expected):
        list(dataset.documents())


def test_a_text_about_pointers_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(POINTER + b"That was a pointer.")
    assert len(text(tmp_path, "a.txt")) == 1


@pytest.mark.parametrize("whole", [False, True])
def test_everything_wrong_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": null}\n\n{"txt": "x"}\n{\n')
    (tmp_path / "b.jsonl").write_bytes(b'\xff\n{"text": "fine"}\n{"text": 3}')
    dataset = make("jsonl", tmp_path, paths="*.jsonl")
    places = [fault.split(": ")[0].removeprefix(f"{tmp_path}/") for fault in dataset.faults(whole)]
    assert places == ["a.jsonl:2", "a.jsonl:4", "a.jsonl:5", "b.jsonl:1", "b.jsonl:3"]
    monkeypatch.setattr(shared, "SMALL", 10)
    monkeypatch.setattr(shared, "BEGINNING", 17)
    beginnings = [fault.split(": ")[0].removeprefix(f"{tmp_path}/") for fault in dataset.faults(whole)]
    assert beginnings == (places if whole else ["a.jsonl:2", "b.jsonl:1"])
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"fine" * 20 + b"\xff")
    assert len(list(make("text", tmp_path, paths="*.txt").faults(whole))) == (2 if whole else 0)


def test_bad_lines_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": "one"}\n{"txt": "x"}\n')
    dataset = make("jsonl", tmp_path, paths="a.jsonl", on_bad_lines="skip")
    assert list(dataset.documents()) == ["one"]
    assert not list(dataset.faults(whole=True))
    (record,) = caplog.records
    assert re.fullmatch(r".*a\.jsonl: skipped 2 lines; the first error: .*a\.jsonl:1: field 'text'.*", record.message)


def test_rows_that_hold_chats_have_a_hint(tmp_path: Path) -> None:
    row = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
    for options in ({"field": "messages"}, {}):
        with pytest.raises(ValueError, match=r"render the chat in .* to text first: .*apply_chat_template"):
            jsonl(tmp_path, row, **options)


def test_paths_may_be_one_or_a_list() -> None:
    options = core.get("dataset", "text").Options
    assert options(paths="a.txt") == options(paths=["a.txt"])
    assert plain(options(paths="a.txt"))["paths"] == ["a.txt"]
    for bad in ([], [1], 3, None):
        with pytest.raises(ValidationError):
            options(paths=bad)


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")),
    st.integers(1, 9),
    st.sampled_from([None, "\n", "ab", "aab"]),
)
def test_text_arrives_whole_whatever_the_block(
    tmp_path_factory: pytest.TempPathFactory, content: str, block: int, separator: str | None
) -> None:
    content += "caabab\nab"
    base = tmp_path_factory.mktemp("text")
    (base / "a.txt").write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK", block)
        documents = text(base, "a.txt", separator=separator)
    pattern = None if separator is None else separator.replace("\n", "\r?\n")
    assert documents == [d for d in ([content] if pattern is None else re.split(pattern, content)) if d]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 1000])
def test_a_separator_fits_line_ends_of_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(text_module, "BLOCK", block)
    (tmp_path / "a.txt").write_bytes(b"one\r\n\r\ntwo\n\nthree\r\nand\r\n\nfour\r\r\nno")
    assert text(tmp_path, "a.txt", separator="\n\n") == ["one", "two", "three\r\nand", "four\r\r\nno"]
    assert text(tmp_path, "a.txt", separator="\r\n\r\n") == [
        "one", "two\n\nthree\r\nand\r\n\nfour\r\r\nno"
    ]  # fmt: skip


def test_a_separator_that_no_file_has_is_an_error(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one\rtwo\r")

    def told(separator: str) -> str:
        dataset = make("text", tmp_path, paths="*.txt", separator=separator)
        with pytest.raises(ValueError, match=r"a\.txt and 1 more: the separator .* does not occur") as caught:
            list(dataset.documents())
        assert list(dataset.faults()) == list(dataset.faults(whole=True)) == [str(caught.value)]
        return str(caught.value)

    assert "YAML" not in told("\n\n")
    assert "in single quotes it is not" in told("\\n\\n")
    (tmp_path / "b.txt").write_text("one\n\ntwo")
    assert text(tmp_path, "*.txt", separator="\n\n") == ["one\rtwo\r", "one", "two"]
    assert not list(make("text", tmp_path, paths="*.txt", separator="\n\n").faults())


def test_text_is_kept_as_it_is_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\xef\xbb\xbf\n")
    assert text(tmp_path, "a.txt") == ["one\r\ntwo\ufeff\n"]


@pytest.mark.parametrize("block", [1, 3, 1000])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("é".encode() * 4 + b"\xff", "must be UTF-8, got byte 8: invalid start byte"),
        (b"abc\xc3", "must be UTF-8, got byte 3: unexpected end of data"),
        (b"abc\xc3d", "must be UTF-8, got byte 3: invalid continuation byte"),
        (b"abcd\0e", r"binary file \(byte 4 is NUL\)"),
    ],
)
def test_files_that_are_not_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str, block: int
) -> None:
    monkeypatch.setattr(text_module, "BLOCK", block)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.txt: .*" + expected):
        text(tmp_path, "a.txt")


@pytest.mark.parametrize("part", ["text", "jsonl"])
def test_files_that_are_not_there(tmp_path: Path, part: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()

    def refused(path: str, expected: str) -> None:
        for use in (lambda d: list(d.documents()), lambda d: d.fingerprint):
            with pytest.raises(ValueError, match=expected):
                use(make(part, tmp_path, paths=[path]))

    refused("missing.txt", r"missing\.txt: no such file")
    refused("empty.txt", r"empty\.txt: is empty")
    refused("folder", r"folder: is a folder; name its files, as in 'folder/\*\.txt'")
    os.mkfifo(tmp_path / "pipe")
    refused("pipe", "pipe: must be a regular file")
    refused("*.txt", "no file matches, or all that do are empty")
    refused("nothing/*.txt", "no file matches")
    (tmp_path / "good.txt").write_text('{"text": "x"}')
    assert len(list(make(part, tmp_path, paths="*.txt").documents())) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("secret")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(ValueError, match=r"a\.txt: cannot be read: Permission denied"):
        text(tmp_path, "a.txt")


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    dataset = make("text", tmp_path, paths="a.txt")
    assert dataset.fingerprint
    (tmp_path / "a.txt").unlink()
    with pytest.raises(ValueError, match=r"a\.txt: cannot be read: No such file"):
        list(dataset.documents())


def test_fingerprints_follow_content_and_options(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("{}")
    first = make("text", tmp_path, paths="a.txt").fingerprint
    assert make("text", tmp_path, paths=["*.txt"]).fingerprint == first
    assert make("text", tmp_path, paths="a.txt", separator="\n").fingerprint != first
    assert make("jsonl", tmp_path, paths="a.txt").fingerprint != first
    assert (
        make("jsonl", tmp_path, paths="a.txt", field="x").fingerprint
        != make("jsonl", tmp_path, paths="a.txt").fingerprint
    )
    os.utime(tmp_path / "a.txt", (1, 1))
    assert make("text", tmp_path, paths="a.txt").fingerprint == first
    (tmp_path / "a.txt").write_text("[]")  # of the same size
    os.utime(tmp_path / "a.txt", (1, 1))
    assert make("text", tmp_path, paths="a.txt").fingerprint != first


@pytest.mark.parametrize("place", [0, 5000, 9999])
def test_fingerprints_of_large_corpora_follow_samples_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(shared, "HASHED", 4000)
    monkeypatch.setattr(shared, "SAMPLE", 8)
    path, content = tmp_path / "a.txt", bytearray(b"x" * 10_000)
    path.write_bytes(content)
    os.utime(path, (1, 1))
    first = make("text", tmp_path, paths="a.txt").fingerprint
    assert make("text", tmp_path, paths="a.txt").fingerprint == first
    content[place] = ord("y")
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert make("text", tmp_path, paths="a.txt").fingerprint != first


def test_samples_are_spread_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SAMPLE", 10)
    (tmp_path / "a").write_bytes(b"x" * 1000)
    before = shared._hash(tmp_path / "a", 1000, 10)
    noticed = []
    for place in range(0, 1000, 10):
        (tmp_path / "a").write_bytes(b"x" * place + b"y" * 10 + b"x" * (990 - place))
        noticed += [place] if shared._hash(tmp_path / "a", 1000, 10) != before else []
    assert {0, 990, 110, 880} <= set(noticed)
    assert len(noticed) <= 19


# ------------------------------------------------------------------ jsonl


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_jsonl_reads_the_field(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    lines = "\n\n".join(json.dumps({"id": 1, "body": t}, ensure_ascii=i % 2 == 0) for i, t in enumerate(texts))
    assert jsonl(tmp_path_factory.mktemp("jsonl"), lines, field="body") == texts


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"text": "x"', "must be JSON, got Expecting ',' delimiter"),
        (b"plain words", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "must be JSON"),
        (b'["text"]', "must be an object, got list; `jq -c .* writes an array as lines"),
        (b"[", "must be JSON, got .*; `jq -c"),
        (b'{"body": "x", "id": 3}', "no field 'text'; fields are 'body', 'id'"),
        (b"{}", "no field 'text'; fields are none"),
        (b'{"text": 3}', "field 'text' must be a string, got int"),
        (b'{"text": null}', "field 'text' must be a string, got NoneType"),
        (b'{"text": "\\ud800"}', "field 'text' holds a lone surrogate"),
        (b'{"text": "\xff"}', "must be UTF-8, got byte 10 of the line"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, expected: str) -> None:
    with pytest.raises(ValueError, match=r"lines\.jsonl:3: " + expected):
        jsonl(tmp_path, b'\xef\xbb\xbf{"text": "fine"}\n\n' + line + b'\n{"text": "later"}\n')


def test_jsonl_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"binary file \(byte 14 is NUL\)"):
        jsonl(tmp_path, b'{"text": "x"}\n\0')
    monkeypatch.setattr(jsonl_module, "LONGEST", 20)
    assert jsonl(tmp_path, b'{"text": "123456"}\n') == ["123456"]
    long = b'{"text": "' + b"9" * 50 + b'"}\n{"text": "a"}'
    assert jsonl(tmp_path, long, on_bad_lines="skip") == ["a"]
    faults = list(make("jsonl", tmp_path, paths="lines.jsonl").faults())
    assert [re.sub(".*/", "", fault) for fault in faults] == ["lines.jsonl:1: a line must be at most 0 MiB"]
    with pytest.raises(ValueError, match=r"lines\.jsonl:1: a line must be at most"):
        jsonl(tmp_path, b'{"text": "123456789"}\n')
