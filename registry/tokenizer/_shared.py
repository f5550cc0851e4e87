"""What tokenizers share: a Hugging Face `tokenizer.json`, read with suspicion and used in one way."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from registry import untrusted
from registry.contracts import Tokenizer

END_OF_TEXT = "<|endoftext|>"
"""How our own tokenizers spell the token that ends a document."""
KNOWN_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
"""What ends a document in a file that does not say so, the first that it has."""
MAX_BYTES = 256 * 2**20
MAX_IDS = 2**24


class FileTokenizer(Tokenizer):
    """A tokenizer that a `tokenizer.json` describes completely; ready after `use`."""

    _core: tokenizers.Tokenizer | None = None

    def use(self, core: tokenizers.Tokenizer, end_of_text: str | None) -> None:
        """Become the tokenizer `core`, whose token `end_of_text` ends a document."""
        core.no_truncation()
        core.no_padding()
        core.encode_special_tokens = True  # special tokens spelt out in a text are text
        if getattr(core.model, "dropout", None):
            core.model.dropout = None  # BPE dropout would give one text many encodings
        self._core = core
        self.vocab_size = max(core.get_vocab(with_added_tokens=True).values()) + 1
        self.end_of_text = None if end_of_text is None else core.token_to_id(end_of_text)
        self.needs_training = False

    def train(self, texts: Iterator[str]) -> None:
        """Nothing is left to learn."""

    def encode(self, text: str) -> list[int]:
        with _plain_errors([text]):
            return self._ready.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[NDArray[Any]]:
        with _plain_errors(texts):
            encodings = self._ready.encode_batch_fast(texts, add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, tokens: list[int]) -> str:
        if tokens and min(tokens) < 0:
            raise ValueError(f"token ids must not be negative, got {min(tokens)}")
        return self._ready.decode([t for t in tokens if t < self.vocab_size], skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        write(folder, self._ready, None if self.end_of_text is None else self._ready.id_to_token(self.end_of_text))

    @property
    def fingerprint(self) -> str:
        return digest(self._ready)

    @property
    def _ready(self) -> tokenizers.Tokenizer:
        if self._core is None:
            raise ValueError(f"tokenizer '{self.name}' has to be trained before it is used")
        return self._core


def read(path: Path, end_of_text: str | None = None) -> tuple[tokenizers.Tokenizer, str | None]:
    """The tokenizer in the file `path`, and its token that ends a document: the one named, or what the file says.

    ValueError for a file that is missing, too large, no tokenizer, or has ids that are absurd or given twice.
    """
    text, page = _page(path)
    try:
        core = tokenizers.Tokenizer.from_str(text)
    except BaseException as error:
        raise _translated(error, f"{path}: not a tokenizer's file") from error
    _check_ids(path, core, page)
    if end_of_text is None:
        return core, _end_of_text(path, core)
    if core.token_to_id(end_of_text) is None:
        raise ValueError(f"{path}: has no token {end_of_text!r} that could end a document")
    return core, end_of_text


def write(folder: Path, core: tokenizers.Tokenizer, end_of_text: str | None) -> None:
    """Write `tokenizer.json`, and beside it `tokenizer_config.json`, which names the token that ends a document."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **({} if end_of_text is None else {"eos_token": end_of_text}),
    }
    for name, text in (("tokenizer.json", core.to_str()), ("tokenizer_config.json", json.dumps(config, indent=2))):
        beside = folder / f".{name}.{os.getpid()}"
        beside.write_text(text + "\n", "utf-8")
        beside.replace(folder / name)


def digest(core: tokenizers.Tokenizer) -> str:
    """SHA-256 of what `core` would be saved as."""
    return hashlib.sha256(core.to_str().encode()).hexdigest()


def check_unicode(text: str) -> None:
    """ValueError for a lone surrogate: half a character, which no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise ValueError(f"text must be Unicode, got a lone surrogate, {found}") from None


@contextmanager
def _plain_errors(texts: list[str]) -> Iterator[None]:
    """Turn whatever the tokenizer library raises, panics included, into ValueError."""
    try:
        yield
    except BaseException as error:
        for text in texts:
            check_unicode(text)
        raise _translated(error, "the tokenizer failed on this text") from error


def _translated(error: BaseException, what: str) -> BaseException:
    """A panic of the Rust library derives from BaseException only; nothing else of that kind is an error."""
    if isinstance(error, ValueError):
        return error
    panicked = type(error).__name__ == "PanicException"
    return ValueError(f"{what}: {error}") if panicked or isinstance(error, Exception) else error


def _page(path: Path) -> tuple[str, dict[str, Any]]:
    """A JSON file's text and content."""
    text = untrusted.text(path, MAX_BYTES)
    try:
        page = untrusted.parsed(text)
    except ValueError as error:
        raise ValueError(f"{path}: not a tokenizer's file: {error}") from None
    if not isinstance(page, dict):
        raise ValueError(f"{path}: not a tokenizer's file: must be a mapping, got {type(page).__name__}")
    return text, page


def _check_ids(path: Path, core: tokenizers.Tokenizer, page: dict[str, Any]) -> None:
    vocabulary = core.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ValueError(f"{path}: the vocabulary is empty")
    token = max(vocabulary, key=lambda t: vocabulary[t])
    if vocabulary[token] >= MAX_IDS:
        raise ValueError(f"{path}: token ids must be below {MAX_IDS}, got {vocabulary[token]} for {token!r}")
    if len(set(vocabulary.values())) < len(vocabulary):
        twice, _ = Counter(vocabulary.values()).most_common(1)[0]
        owners = sorted(t for t, i in vocabulary.items() if i == twice)
        raise ValueError(f"{path}: id {twice} is given to several tokens: {', '.join(map(repr, owners[:4]))}")
    for added in page.get("added_tokens") or []:
        if vocabulary.get(added["content"]) != added["id"]:  # the library renumbers a token whose id is taken
            raise ValueError(f"{path}: added token {added['content']!r} cannot have the id {added['id']}")


def _end_of_text(path: Path, core: tokenizers.Tokenizer) -> str | None:
    config = path.with_name("tokenizer_config.json")
    named: list[str] = []
    if config.is_file():
        token = _page(config)[1].get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        named = [token] if isinstance(token, str) else []
    return next((t for t in (*named, *KNOWN_ENDS) if core.token_to_id(t) is not None), None)
