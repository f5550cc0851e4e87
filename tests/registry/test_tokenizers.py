"""Tokenizers: round trips, files from elsewhere, and what strangers' files and texts may contain."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry import core
from registry.contracts import Tokenizer
from registry.tokenizer import _shared
from transformer_kit.data.tokenizer_file import load_tokenizer

CORPUS = ["def f(x):\n    return x  # Grüße, 你好 🦜\n", "class A:\n    pass\n", "the text of the text\n"] * 10
ANY = st.text(st.characters(exclude_categories=["Cs"]))
END = "<|endoftext|>"


def make(part: str, base: Path = Path(), **options: Any) -> Tokenizer:
    cls = core.get("tokenizer", part)
    return cls(cls.Options(**options), base)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    tokenizer = make("bpe", vocab_size=320)
    tokenizer.train(iter(CORPUS))
    return tokenizer


@pytest.fixture(scope="module", params=core.names("tokenizer"))
def ready(request: pytest.FixtureRequest) -> Tokenizer:
    """Every tokenizer there is, trained."""
    tokenizer = make(request.param)
    tokenizer.train(iter(CORPUS))
    return tokenizer


@given(ANY | st.text("ab<|endoftx>\n 你", max_size=30))
def test_round_trip(ready: Tokenizer, text: str) -> None:
    tokens = ready.encode(text, split_special_tokens=True)
    assert ready.decode(tokens) == text
    assert all(0 <= t < ready.vocab_size for t in tokens)
    assert ready.end_of_text not in tokens


@given(st.lists(ANY, max_size=4))
def test_batches_equal_single_texts(ready: Tokenizer, texts: list[str]) -> None:
    assert [ids.tolist() for ids in ready.encode_batch(texts)] == [ready.encode(text) for text in texts]


def test_saved_and_loaded_are_the_same(ready: Tokenizer, tmp_path: Path) -> None:
    ready.save(tmp_path)
    for loaded in (load_tokenizer(tmp_path), load_tokenizer(tmp_path / "tokenizer.json")):
        assert (loaded.vocab_size, loaded.end_of_text) == (ready.vocab_size, ready.end_of_text)
        assert loaded.fingerprint == ready.fingerprint
        assert not loaded.needs_training
        for text in (*CORPUS, f"a {END} b", "", "\x00\x7f\xa0\xad"):
            assert loaded.encode(text) == ready.encode(text)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


@given(st.lists(st.integers(0, 400), max_size=30))
def test_the_saved_bytes_decode_alike(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> None:
    native, folder = make("bytes"), tmp_path_factory.mktemp("bytes")
    native.save(folder)
    assert load_tokenizer(folder).decode(tokens) == native.decode(tokens)


def test_special_tokens_spelled_out_are_read_as_such(ready: Tokenizer) -> None:
    assert ready.special_tokens == {ready.end_of_text: END}
    text = f"before {END} after{END}"
    tokens = ready.encode(text)
    assert tokens.count(ready.end_of_text) == 2
    assert ready.decode(tokens) == "before  after"
    assert ready.encode_batch([text])[0].tolist() == tokens


def test_special_tokens_spelled_out_stay_text_where_asked(ready: Tokenizer) -> None:
    assert ready.end_of_text is not None
    text = f"before {END} after{END}"
    tokens = ready.encode(text, split_special_tokens=True)
    assert ready.end_of_text not in tokens
    assert ready.decode(tokens) == text
    assert ready.encode_batch([text], split_special_tokens=True)[0].tolist() == tokens
    assert ready.decode([*tokens[:7], ready.end_of_text, *tokens[7:]]) == text


def test_a_lone_surrogate_is_named(ready: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"lone surrogate, U\+D83E at character 2"):
        ready.encode("ab\ud83e")
    with pytest.raises(ValueError, match=r"lone surrogate, U\+DC00 at character 0"):
        ready.encode_batch(["fine", "\udc00"])


def test_ids_without_text(ready: Tokenizer) -> None:
    assert ready.decode([*ready.encode("ab"), ready.vocab_size, 10**12]) == "ab"
    assert ready.decode([]) == ""
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        ready.decode([-1])


def test_bytes_are_the_ids() -> None:
    tokenizer = make("bytes")
    assert tokenizer.encode("é\n") == [0xC3, 0xA9, 10]
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (257, 256)
    assert tokenizer.decode([0xC3, 256, 0xA9, 0xFF]) == "é\ufffd"


def test_bpe_learns_what_is_frequent(bpe: Tokenizer) -> None:
    assert 257 < bpe.vocab_size <= 320
    assert len(bpe.encode("the text")) < 5
    small = make("bpe", vocab_size=5000, min_frequency=10_000)
    small.train(iter(CORPUS))
    assert small.vocab_size == 257
    start = make("bpe", vocab_size=320, max_mb=0.00002)
    start.train(iter(["zzzzzzzzzzzzzzzzzzzzzzzzz", *CORPUS]))
    assert len(start.encode("z" * 25)) < 5 < len(start.encode("the text"))


def test_bpe_training_is_deterministic_and_happens_once(bpe: Tokenizer) -> None:
    other = make("bpe", vocab_size=320)
    assert other.needs_training
    other.train(iter(CORPUS))
    assert other.fingerprint == bpe.fingerprint
    other.train(iter(["entirely different " * 50]))
    assert other.fingerprint == bpe.fingerprint


def test_bpe_before_training() -> None:
    with pytest.raises(ValueError, match="tokenizer 'bpe' must be trained"):
        make("bpe").encode("text")


def test_errors_of_the_corpus_pass_through_training() -> None:
    def texts() -> Any:
        yield "fine"
        raise ValueError("corpus.txt:3: is bad")

    with pytest.raises(ValueError, match=r"corpus\.txt:3: is bad"):
        make("bpe").train(texts())
    with pytest.raises(ValueError, match="lone surrogate"):
        make("bpe").train(iter(["\ud800"]))


def test_bpe_from_a_file(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    loaded = make("bpe", tmp_path, file="tokenizer.json")
    assert not loaded.needs_training
    assert loaded.encode(CORPUS[0]) == bpe.encode(CORPUS[0])
    assert loaded.end_of_text == bpe.end_of_text
    assert make("bpe", tmp_path, file="tokenizer.json", end_of_text="a").decode([loaded.encode("a")[0]]) == "a"
    with pytest.raises(ValueError, match="has no token '<stop>'"):
        make("bpe", tmp_path, file="tokenizer.json", end_of_text="<stop>")
    with pytest.raises(ValidationError, match="vocab_size, max_mb has no effect"):
        make("bpe", tmp_path, file="tokenizer.json", vocab_size=300, max_mb=1.0)


def test_a_chosen_end_of_text_survives_saving(tmp_path: Path) -> None:
    tokenizer = make("bpe", vocab_size=300, end_of_text="<stop>")
    tokenizer.train(iter(CORPUS))
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).end_of_text == tokenizer.end_of_text == 0


@pytest.mark.parametrize("token", ["</s>", {"content": "</s>", "special": True}, "missing", None])
def test_end_of_text_of_a_strangers_folder(tmp_path: Path, token: object) -> None:
    core_ = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    core_.add_special_tokens(["<s>", "</s>"])
    core_.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": token}))
    assert load_tokenizer(tmp_path).end_of_text == 3


def test_strangers_settings_do_not_change_the_tokens(tmp_path: Path) -> None:
    core_ = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")], dropout=0.9)
    )
    core_.add_special_tokens(["<s>"])
    core_.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    core_.enable_truncation(2)
    core_.enable_padding(length=9)
    core_.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("ab" * 5) == [3, *[2] * 5]
    assert tokenizer.encode("ab" * 5, add_special_tokens=False) == [2] * 5
    assert tokenizer.encode_batch(["ab" * 5])[0].tolist() == [3, *[2] * 5]
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.end_of_text) == ((3,), (), None)


def page(**changes: Any) -> str:
    return json.dumps({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, **changes})


def replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def sequence(step: dict[str, Any], times: int) -> dict[str, Any]:
    return {"type": "Sequence", "steps": [step] * times}


def added(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True, **flags}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not a tokenizer file"),
        ("<html>", "not a tokenizer file"),
        (b"\x80\x04\x95pickle", "not UTF-8 text"),
        ("[" * 100_000, "not a tokenizer file"),
        ("[]", "must be a mapping, got list"),
        ("{}", "not a tokenizer file: Model missing"),
        (page(normalizer=sequence(replace("a", "aa"), 7)), "its normalizer makes a text more than 64 times as long"),
        (page(normalizer=replace("", "a" * 64)), "its normalizer makes a text more than 64 times as long"),
        (page(decoder=sequence(sequence(replace("a", "aaa"), 2), 2)), "its decoder makes a text more than 64 times"),
        (page(pre_tokenizer=sequence({"type": "ByteLevel"}, 7)), "its pre_tokenizer makes a text more than 64 times"),
        (page(normalizer=sequence({"type": "NFC"}, 256)), "its normalizer has too many steps: at most 256, got 257"),
        (page(added_tokens=[0] * (2**21 + 1)), "has too many tokens and merges: at most 2,097,152, got 2,097,155"),
        (page(model={"type": "BPE", "vocab": {}, "merges": []}), "vocabulary is empty"),
        (page(model={"type": "BPE", "vocab": {"a": -1}, "merges": []}), "not a tokenizer file"),
        (page(model={"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}), "id 0 belongs to several .*'a', 'b'"),
        (page(model={"type": "BPE", "vocab": {"a": 0, "b": 1 << 31}, "merges": []}), "below 16777216, got 2147483648"),
        (page(model={"type": "BPE", "vocab": {"a": 0, "b": 1 << 40}, "merges": []}), "not a tokenizer file"),
        (page(added_tokens=[added("<s>", 1)]), "'<s>' cannot have the id 1"),
        (page(added_tokens=[added("<s>", 4_000_000_000)]), "'<s>' cannot have the id 4000000000"),
        (
            page(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}),
            "Onig",
        ),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path: Path, content: str | bytes, expected: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for load in (load_tokenizer, lambda p: make("bpe", p.parent, file=p.name)):
        with pytest.raises(ValueError, match=expected) as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_missing_folder_and_oversized_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"nothing.*cannot be read: No such file"):
        load_tokenizer(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"has no tokenizer\.json; copy the one"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="cannot be read: is a folder"):
        make("bpe", tmp_path, file=".")
    monkeypatch.setattr(_shared, "MAX_BYTES", 20)
    (tmp_path / "tokenizer.json").write_text(page())
    with pytest.raises(ValueError, match="too large"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("call", [lambda t, x: t.encode(x), lambda t, x: t.encode_batch([x])])
def test_a_panic_in_the_library_is_an_error(tmp_path: Path, call: Callable[[Tokenizer, str], Any]) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(((((a+)+)+)+)+)$"}, "behavior": "Isolated", "invert": False}
    (tmp_path / "tokenizer.json").write_text(page(pre_tokenizer=split))
    with pytest.raises(ValueError, match="the tokenizer failed on this text"):
        call(load_tokenizer(tmp_path), "a" * 40 + "b")


def test_a_post_processor_that_does_more_than_add_is_refused(tmp_path: Path) -> None:
    pieces = [{"Sequence": {"id": "A", "type_id": 0}}] * 2
    template = {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": {}}
    (tmp_path / "tokenizer.json").write_text(page(post_processor=template))
    with pytest.raises(ValueError, match=r"tokenizer\.json: the post-processor must only add tokens"):
        load_tokenizer(tmp_path)


def test_ids_that_a_post_processor_makes_up_are_refused(tmp_path: Path) -> None:
    said = {"type": "BertProcessing", "sep": ["x", 77], "cls": ["a", 0]}
    (tmp_path / "tokenizer.json").write_text(page(post_processor=said))
    with pytest.raises(ValueError, match=r"tokenizer\.json: the post-processor adds the id 77; the largest id is 1"):
        load_tokenizer(tmp_path)


def test_training_heeds_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library learns in another thread, and waiting for it can be interrupted."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(60)

    threading.Thread(target=lambda: (begun.wait(60), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        _shared.interruptible(slow)
    go_on.set()
    assert _shared.interruptible(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        _shared.interruptible(lambda: 1 // 0)
