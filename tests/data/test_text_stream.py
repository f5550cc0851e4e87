"""Text token by token: never half a character, and in the end the text of all tokens."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.contracts import Tokenizer
from transformer_kit.data.text_stream import TextStream
from transformer_kit.data.tokenizer_file import load_tokenizer


@given(
    st.lists(st.integers(0, 256) | st.sampled_from([0xE4, 0xBD, 0xA0, 0xF0, 0x9F, 0xA6, 0x9C, 0xEF, 0xBF]), max_size=40)
)
def test_any_bytes(bytewise: Tokenizer, tokens: list[int]) -> None:
    stream = TextStream(bytewise)
    assert "".join([*map(stream.push, tokens), stream.finish()]) == bytewise.decode(tokens)


@given(st.lists(st.integers(0, 399), max_size=40))
def test_any_pairs_of_bytes(trained_bpe: Tokenizer, tokens: list[int]) -> None:
    stream = TextStream(trained_bpe)
    assert "".join([*map(stream.push, tokens), stream.finish()]) == trained_bpe.decode(tokens)


def test_characters_come_whole(bytewise: Tokenizer) -> None:
    stream = TextStream(bytewise)
    assert [stream.push(t) for t in "aé🦜".encode()] == ["a", "", "é", "", "", "", "🦜"]
    assert stream.finish() == ""


def test_finish_says_what_was_held_back_and_starts_anew(bytewise: Tokenizer) -> None:
    stream = TextStream(bytewise)
    assert stream.push(0xE4) == ""
    assert stream.finish() == "\ufffd"
    assert stream.push(ord("b")) == "b"


def test_spaces_that_depend_on_the_neighbour(tmp_path: Path) -> None:
    bird = [f"<0x{byte:02X}>" for byte in "🦜".encode()]
    words = {word: i for i, word in enumerate(["▁the", "▁cat", "s", "▁", *bird, "<unk>"])}
    decoder = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    page = {"decoder": decoder, "model": {"type": "BPE", "vocab": words, "merges": [], "unk_token": "<unk>"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(page))
    tokenizer = load_tokenizer(tmp_path)
    tokens = [0, 1, 2, 0, 1, 4, 5, 6, 7, 1, 3, 0]
    stream = TextStream(tokenizer)
    assert (
        "".join([*map(stream.push, tokens), stream.finish()])
        == "the cats the cat🦜 cat  the"
        == tokenizer.decode(tokens)
    )


@pytest.mark.parametrize("length", [200, 2000])
def test_a_token_costs_the_same_however_long_the_text(bytewise: Tokenizer, length: int) -> None:
    stream = TextStream(bytewise)
    for token in ("aé🦜" * length).encode():
        stream.push(token)
    assert len(stream._tokens) < 12
