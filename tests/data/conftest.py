"""Tokenizers for the tests of the data engine."""

import pytest

from registry import core
from registry.contracts import Tokenizer


@pytest.fixture(scope="session")
def bytewise() -> Tokenizer:
    part = core.get("tokenizer", "bytes")
    return part(part.Options())


@pytest.fixture(scope="session")
def trained_bpe() -> Tokenizer:
    part = core.get("tokenizer", "bpe")
    tokenizer = part(part.Options(vocab_size=400))
    tokenizer.train(iter(["a line and more lines, indented\n\n    like this; dann Grüße, 你好 🦜\n"] * 20))
    return tokenizer
