"""The token cache: right, used, bounded in memory, and never believed when it is incomplete or damaged."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import core
from registry.contracts import Dataset, Tokenizer
from tests.data.corpora import Documents
from transformer_kit.data import store as store_module
from transformer_kit.data.cache import ABANDONED, VARIABLE, cache_folder
from transformer_kit.data.prepare import prepare
from transformer_kit.data.store import TokenStore
from transformer_kit.data.tokenizer_file import trained


def folders(cache: Path) -> list[Path]:
    return sorted((cache / "tokens").iterdir()) if (cache / "tokens").exists() else []


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1).filter(any))
def test_holds_every_document_and_its_end(
    tmp_path_factory: pytest.TempPathFactory, bytewise: Tokenizer, texts: list[str]
) -> None:
    store = prepare(Documents(*texts), bytewise, tmp_path_factory.mktemp("cache"))
    kept = [text for text in texts if text]
    assert store.tokens.tolist() == [i for text in kept for i in [*text.encode(), 256]]
    assert store.ends.tolist() == np.cumsum([len(text.encode()) + 1 for text in kept]).tolist()
    assert store.bytes_per_token * len(store) == pytest.approx(sum(len(text.encode()) for text in kept))


def test_long_documents_and_many_batches(tmp_path: Path, trained_bpe: Tokenizer) -> None:
    text = "".join(f"line {i}\nmore of it\n" for i in range(20_000))
    store = prepare(Documents(text, "x" * 300_000, *["tiny\n"] * 9000), trained_bpe, tmp_path)
    ids = store.tokens.tolist()
    assert store.tokens.dtype == np.uint16
    assert ids[: store.ends[0]] == [*trained_bpe.encode(text), trained_bpe.end_of_text]
    assert trained_bpe.decode(ids[store.ends[0] : store.ends[1]]) == "x" * 300_000
    assert len(store.ends) == 9002


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path, bytewise: Tokenizer) -> None:
    class Wide(type(bytewise)):  # type: ignore[misc]
        vocab_size, fingerprint, end_of_text = 70_000, "wide", 69_999

    store = prepare(Documents("ab"), Wide(Tokenizer.Options()), tmp_path)
    assert store.tokens.tolist() == [97, 98, 69_999]
    assert store.tokens.dtype == np.uint32


def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path, bytewise: Tokenizer) -> None:
    class Small(type(bytewise)):  # type: ignore[misc]
        vocab_size, fingerprint, end_of_text, special_tokens = 98, "small", None, {}

    with pytest.raises(ValueError, match="has 98 ids and returned the id 98"):
        prepare(Documents("ab"), Small(Tokenizer.Options()), tmp_path)
    assert folders(tmp_path) == []


def test_tokenized_once(tmp_path: Path, bytewise: Tokenizer, trained_bpe: Tokenizer) -> None:
    dataset = Documents("some text")
    first = prepare(dataset, bytewise, tmp_path)
    again = prepare(dataset, bytewise, tmp_path)
    assert dataset.reads == 1
    assert first.tokens.tolist() == again.tokens.tolist()
    prepare(dataset, trained_bpe, tmp_path)
    assert dataset.reads == 2
    prepare(Documents("other text"), bytewise, tmp_path)
    assert len(folders(tmp_path)) == 3
    part = core.get("tokenizer", "bpe")
    other_merges = part(part.Options(vocab_size=300))
    other_merges.train(iter(["other merges " * 20]))
    prepare(dataset, other_merges, tmp_path)
    assert dataset.reads == 3


def test_progress_is_told_in_bytes(tmp_path: Path, bytewise: Tokenizer) -> None:
    told: list[int] = []
    prepare(Documents("é" * 10, "x" * 5), bytewise, tmp_path, told.append)
    assert told[-1] == 25


def test_a_corpus_without_text(tmp_path: Path, bytewise: Tokenizer) -> None:
    with pytest.raises(ValueError, match="the corpus has no text"):
        prepare(Documents("", ""), bytewise, tmp_path)
    assert folders(tmp_path) == []


class Failing(Documents):
    """Breaks off after its documents."""

    def documents(self) -> Iterator[str]:
        yield from self.list
        raise self.error

    error: BaseException = ValueError("a bad file")


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_an_error_leaves_nothing_behind(tmp_path: Path, bytewise: Tokenizer, error: BaseException) -> None:
    dataset = Failing("x" * 10_000_000)
    dataset.error = error
    with pytest.raises(type(error)):
        prepare(dataset, bytewise, tmp_path)
    assert folders(tmp_path) == []


KILLED = """
import sys, time
from pathlib import Path
from tests.data.corpora import Documents
from registry import core
from transformer_kit.data.prepare import prepare

class Slow(Documents):
    def documents(self):
        yield "x" * 5_000_000
        print("half", flush=True)
        time.sleep(60)

part = core.get("tokenizer", "bytes")
prepare(Slow("the text"), part(part.Options()), Path(sys.argv[1]))
"""


def test_a_killed_process_leaves_nothing_that_is_believed(tmp_path: Path, bytewise: Tokenizer) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)
    (remains,) = folders(tmp_path)
    assert remains.name.startswith(".")
    store = prepare(Documents("the text"), bytewise, tmp_path)
    assert bytewise.decode(store.tokens.tolist()) == "the text"
    assert remains.exists()  # its writer might be alive on another machine
    long_ago = time.time() - 2 * ABANDONED
    for path in (*remains.iterdir(), remains):
        os.utime(path, (long_ago, long_ago))
    prepare(Documents("another"), bytewise, tmp_path)
    assert not remains.exists()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink])
@pytest.mark.parametrize("name", ["tokens.bin", "documents.bin", "marks.bin", "manifest.json"])
def test_a_damaged_cache_is_noticed_and_made_anew(
    tmp_path: Path, bytewise: Tokenizer, caplog: pytest.LogCaptureFixture, name: str, damage: object
) -> None:
    dataset = Documents("some text", "and more")
    expected = prepare(dataset, bytewise, tmp_path).tokens.tolist()
    (folder,) = folders(tmp_path)
    damage(folder / name)  # type: ignore[operator]
    with pytest.raises(ValueError, match=name):
        TokenStore(folder)
    assert prepare(dataset, bytewise, tmp_path).tokens.tolist() == expected
    assert dataset.reads == 2
    assert "rebuilding" in caplog.text
    TokenStore(folder)


def test_checksums_cover_blocks_of_large_files(
    tmp_path: Path, bytewise: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BLOCK", 1000)
    prepare(Documents(*["x" * 777] * 20), bytewise, tmp_path)
    (folder,) = folders(tmp_path)
    TokenStore(folder)
    content = bytearray((folder / "tokens.bin").read_bytes())
    content[-1] ^= 1
    (folder / "tokens.bin").write_bytes(content)
    with pytest.raises(ValueError, match="damaged in the 1000 bytes after byte 31000"):
        TokenStore(folder)
    monkeypatch.setattr(store_module, "CHECKED", 2)  # of many blocks the first and the last are among the checked
    with pytest.raises(ValueError, match="damaged"):
        TokenStore(folder)


def test_two_processes_may_write_the_same(tmp_path: Path, bytewise: Tokenizer) -> None:
    class Overtaken(Documents):
        def documents(self) -> Iterator[str]:
            prepare(Documents("the text"), bytewise, tmp_path)
            yield "the text"

    store = prepare(Overtaken("the text"), bytewise, tmp_path)
    assert bytewise.decode(store.tokens.tolist()) == "the text"
    assert len(folders(tmp_path)) == 1


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, bytewise: Tokenizer) -> None:
    file = tmp_path / "large.txt"
    with file.open("w") as out:
        for i in range(80):
            out.write(f"{i} line of text\n" * 60_000)
    part = core.get("dataset", "text")
    tracemalloc.start()
    try:
        store = prepare(part(part.Options(paths=str(file)), tmp_path), bytewise, tmp_path / "cache")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(store) == file.stat().st_size + 1 > 75_000_000
    assert peak < 45_000_000


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "transformer_kit"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(tmp_path / "argument") == tmp_path / "argument"


def test_a_cache_that_cannot_be_written(tmp_path: Path, bytewise: Tokenizer) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=f"cannot be written: Not a directory; set {VARIABLE} to another folder"):
        prepare(Documents("text"), bytewise, tmp_path / "file")


def test_tokenizers_are_trained_once(tmp_path: Path) -> None:
    part = core.get("tokenizer", "bpe")

    def ready(dataset: Dataset, **options: int) -> Tokenizer:
        return trained(part(part.Options(**options)), dataset, tmp_path)

    dataset = Documents("the text of the corpus " * 50)
    first, again = ready(dataset, vocab_size=300), ready(dataset, vocab_size=300)
    assert dataset.reads == 1
    assert first.fingerprint == again.fingerprint
    assert first.encode("the corpus") == again.encode("the corpus")
    assert first.end_of_text == again.end_of_text is not None
    ready(dataset, vocab_size=280)
    assert dataset.reads == 2
    (tmp_path / "tokenizers").rename(tmp_path / "moved")
    for file in (tmp_path / "moved").glob("*/tokenizer.json"):
        _truncate(file)
        _truncate(file)
        _truncate(file)
    (tmp_path / "moved").rename(tmp_path / "tokenizers")
    assert ready(dataset, vocab_size=300).fingerprint == first.fingerprint
    assert dataset.reads == 3


def test_a_tokenizer_without_training_is_left_alone(tmp_path: Path, bytewise: Tokenizer) -> None:
    assert trained(bytewise, Documents("x"), tmp_path) is bytewise
    assert not list(tmp_path.iterdir())


def _text(base: Path, content: str) -> Dataset:
    (base / "a.txt").write_text(content)
    os.utime(base / "a.txt", (1, 1))
    part = core.get("dataset", "text")
    return part(part.Options(paths="a.txt"), base)


def test_other_text_of_the_same_size_and_time_is_no_hit(tmp_path: Path, bytewise: Tokenizer) -> None:
    part = core.get("tokenizer", "bpe")
    for content in ("aaaa bbbb " * 50, "cccc dddd " * 50, "aaaa bbbb " * 50):
        dataset = _text(tmp_path, content)
        assert bytewise.decode(prepare(dataset, bytewise, tmp_path / "cache").tokens.tolist()) == content
        merges = trained(part(part.Options(vocab_size=262)), dataset, tmp_path / "cache")
        assert len(merges.encode(content)) < len(content) / 2
    assert len(folders(tmp_path / "cache")) == 2
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    (tmp_path / "moved").mkdir()
    prepare(_text(tmp_path / "moved", content), bytewise, tmp_path / "cache")
    assert len(folders(tmp_path / "cache")) == 2


def test_a_corpus_that_changes_while_it_is_read_is_refused(tmp_path: Path, bytewise: Tokenizer) -> None:
    dataset = _text(tmp_path, "some text")
    read = dataset.pieces

    def changing() -> Iterator[tuple[str, bool]]:
        yield from read()
        _text(tmp_path, "more text")

    dataset.pieces = changing  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="changed while it was tokenized"):
        prepare(dataset, bytewise, tmp_path / "cache")
    assert not folders(tmp_path / "cache")


def test_all_bad_rows_are_told_before_anything_is_tokenized(tmp_path: Path, bytewise: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 30 + "[]\n" * 30)
    part = core.get("dataset", "jsonl")
    dataset = part(part.Options(paths="a.jsonl"), tmp_path)
    done: list[int] = []
    for use in (
        lambda: prepare(dataset, bytewise, tmp_path / "cache", done.append),
        lambda: trained(core.get("tokenizer", "bpe")(core.get("tokenizer", "bpe").Options()), dataset, tmp_path),
    ):
        with pytest.raises(ValueError, match="and more") as caught:
            use()
        assert len(str(caught.value).splitlines()) == 21
    assert not done
