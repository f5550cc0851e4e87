"""Text token by token: never half a character, and in the end the text of all tokens."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.contracts import Tokenizer
from tests.data import zoo
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


def test_spaces_that_depend_on_the_neighbor(tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return {kind: load_tokenizer(zoo.write(kind, tmp_path_factory.mktemp(kind))) for kind in zoo.KINDS}


def follow(tokenizer: Tokenizer, prompt: list[int], new: list[int]) -> str:
    stream = TextStream(tokenizer, prompt)
    return "".join([*map(stream.push, new), stream.finish()])


@pytest.mark.parametrize("kind", zoo.KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_stream_is_what_decode_says_beyond_the_prompt(
    kinds: dict[str, Tokenizer], kind: str, data: st.DataObject
) -> None:
    tokenizer = kinds[kind]
    often = st.sampled_from(
        [*tokenizer.special_tokens, *(tokenizer.encode("  the cat \n🦜", add_special_tokens=False))]
    )
    ids = st.lists(st.integers(0, tokenizer.vocab_size - 1) | often, max_size=24)
    prompt = data.draw(ids | st.sampled_from(zoo.TEXTS).map(tokenizer.encode))
    run = st.lists(st.sampled_from(["5", "\x07", "é", "\xa0", "🦜", "‱", "the", " "]), max_size=6).map("".join)
    text = run.map(lambda text: tokenizer.encode(text, add_special_tokens=False))
    new = data.draw(ids | text | st.tuples(ids, text, ids).map(lambda parts: [*parts[0], *parts[1], *parts[2]]))
    whole = tokenizer.decode([*prompt, *new])
    assert follow(tokenizer, prompt, new) == whole[len(tokenizer.decode(prompt)) :]


def test_a_special_token_takes_no_space_from_its_neighbor(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = kinds["llama2"]
    cat = tokenizer.encode("cat", add_special_tokens=False)
    assert follow(tokenizer, [1, *cat], [*cat, 1, *cat, 0, 2, *cat]) == " cat cat cat"


def test_bytes_come_as_soon_as_their_run_ends(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = kinds["llama2"]
    line, wrong = (zoo.fallback().index(f"<0x{byte:02X}>") for byte in (0x0A, 0xFF))
    stream = TextStream(tokenizer, tokenizer.encode("cat"))
    assert stream.push(line) == ""
    assert stream.push(tokenizer.encode("cat")[-1]).startswith("\n")
    assert follow(tokenizer, tokenizer.encode("cat"), [line, wrong]) == "\ufffd\ufffd"


@pytest.mark.parametrize("length", [200, 2000])
def test_a_token_costs_the_same_however_long_the_text(bytewise: Tokenizer, length: int) -> None:
    stream = TextStream(bytewise)
    for token in ("aé🦜" * length).encode():
        stream.push(token)
    assert len(stream._tokens) < 12
