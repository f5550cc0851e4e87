"""A document's ids do not depend on how it is cut: for tokenizers that put a space first, strip, merge or fall back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import core
from registry.contracts import Tokenizer
from tests.data import zoo
from tests.data.corpora import Documents
from transformer_kit.data import windows as module
from transformer_kit.data.prepare import prepare
from transformer_kit.data.tokenizer_file import load_tokenizer
from transformer_kit.data.windows import Joiner, windows

SIZE, OVERLAP = 160, 64
WORDS = st.sampled_from(
    ["the", " cat", "  ", "\n", "\n\n", "sat", "é", "你好", "🦜", ".", "don't", "<s>", "</s>", "aaaa", "\t"]
)
LONG = st.lists(WORDS, min_size=30, max_size=200).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    made: dict[str, Tokenizer] = {}

    def of(kind: str) -> Tokenizer:
        if kind not in made and kind in core.names("tokenizer"):
            part = core.get("tokenizer", kind)
            made[kind] = part(part.Options())
            made[kind].train(iter(zoo.CORPUS))
        elif kind not in made:
            made[kind] = load_tokenizer(zoo.write(kind, tmp_path_factory.mktemp(kind)))
        return made[kind]

    return of


def joined(tokenizer: Tokenizer, pieces: list[tuple[str, bool]], size: int, overlap: int) -> tuple[list[int], str]:
    joiner, ids, texts = Joiner(tokenizer), [np.zeros(0, int)], []
    batch = list(windows(pieces, size, overlap))
    joiner.read(batch)
    for window in batch:
        for part, text in joiner.push(window):
            ids.append(part)
            texts.append(text)
    return np.concatenate(ids).tolist(), "".join(texts)


@pytest.mark.parametrize("kind", [*zoo.KINDS, *core.names("tokenizer")])
@settings(max_examples=25)
@given(text=LONG)
def test_windows_give_the_ids_of_the_document(tokenizer: Callable[[str], Tokenizer], kind: str, text: str) -> None:
    made = tokenizer(kind)
    ids, read = joined(made, [(text[:50], False), (text[50:], True)], SIZE, OVERLAP)
    assert ids == made.encode(text, add_special_tokens=False)
    assert read == text


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "bert", "words", "metaspace_first"])
@pytest.mark.parametrize("text", ["a" * 3000, " " * 3000, "ab" * 1500, "x" * 1000 + " the cat" * 300, "\n" * 2000])
def test_runs_that_no_window_can_tell_from_each_other(
    tokenizer: Callable[[str], Tokenizer], kind: str, text: str
) -> None:
    made = tokenizer(kind)
    assert joined(made, [(text, True)], SIZE, OVERLAP) == (made.encode(text, add_special_tokens=False), text)


def test_windows_that_disagree_are_read_again_together(tmp_path: Path) -> None:
    """Merges of a long run go in steps from its beginning, and each window begins at another place of a step."""
    runs = ["a" * 2**i for i in range(5)]
    merges = [(run, run) for run in runs[:-1]]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={t: i for i, t in enumerate(["x", *runs])}, merges=merges))
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    for text in ("x" + "a" * 3001, "a" * 777 + "x" * 400 + "a" * 1001 + "x" * 400):
        assert joined(tokenizer, [(text, True)], 150, 61) == (tokenizer.encode(text), text)


def test_a_tokenizer_without_spans_reads_whole_documents(tokenizer: Callable[[str], Tokenizer]) -> None:
    class Plain(type(tokenizer("bytes"))):  # type: ignore[misc]
        encode_spans = Tokenizer.encode_spans

    text = "the cat sat " * 100
    assert joined(Plain(Tokenizer.Options()), [(text, True)], SIZE, OVERLAP) == (list(text.encode()), text)


@pytest.mark.parametrize("kind", ["llama2", "t5", "bert", "gpt2"])
def test_a_corpus_holds_the_ids_of_whole_documents(
    tokenizer: Callable[[str], Tokenizer], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SIZE", 1 << 12)
    made = tokenizer(kind)
    documents = ["the cat sat on the mat" * 2000, "short </s>", "", "<s> 你好 🦜\n" * 900]
    store = prepare(Documents(*documents), made, tmp_path)
    stop = [] if made.end_of_text is None else [made.end_of_text]
    expected = [made.encode(text) for text in documents if text]
    expected = [ids if ids[-1:] == stop else [*ids, *stop] for ids in expected]
    assert store.tokens.tolist() == [i for ids in expected for i in ids]
    assert store.ends.tolist() == np.cumsum([len(ids) for ids in expected]).tolist()
