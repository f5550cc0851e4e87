"""What is printed reaches its reader whole, whatever the locale."""

import io
import json
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_kit.cli.generation import _unicode
from transformer_kit.cli.output import emit, lose_nothing

ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-8", "utf-16", "shift_jis"]


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def made(kind: type[io.TextIOWrapper], encoding: str, monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", kind(raw, encoding=encoding, errors="strict"))
    lose_nothing(sys.stdout)
    return raw


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(), more=st.text("é日😀\udce9", max_size=4))
def test_json_says_what_the_text_was(encoding: str, text: str, more: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        raw = made(io.TextIOWrapper, encoding, patched)
        emit({"text": text + more})
        assert json.loads(raw.getvalue().decode("utf-8")) == {"text": text + more}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_on_a_terminal_that_lacks_characters(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = made(Terminal, encoding, monkeypatch)
    emit({"text": "café 日 \ud83e"})
    assert json.loads(raw.getvalue().decode(encoding)) == {"text": "café 日 \ud83e"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_redirected_text_is_utf8(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = made(io.TextIOWrapper, encoding, monkeypatch)
    sys.stdout.write("café 日\n name \udce9 half \ud83e")
    sys.stdout.flush()
    assert raw.getvalue() == "café 日\n name ".encode() + b"\xe9 half \\ud83e"


def test_a_terminal_shows_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = made(Terminal, "ascii", monkeypatch)
    sys.stdout.write("café")
    sys.stdout.flush()
    assert raw.getvalue() == b"caf?"


def test_an_argument_is_utf8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, decode in (("é", os.fsdecode(b"\xc3\xa9")), ("日", os.fsdecode("日".encode())), ("\ud83e", "\ud83e")):
        assert _unicode(decode) == name
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    assert _unicode("é".encode().decode("ascii", "surrogateescape")) == "é"
