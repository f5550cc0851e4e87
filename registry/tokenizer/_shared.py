"""Shared by tokenizers: a Hugging Face `tokenizer.json`, checked before use."""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tokenizers
from numpy.typing import NDArray

from registry import untrusted
from registry.contracts import Spans, Tokenizer
from registry.tokenizer import _bounds
from registry.tokenizer._given import check_unicode, ids_of

END_OF_TEXT = "<|endoftext|>"
"""End-of-text token of the kit's own tokenizers."""
KNOWN_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
"""Usual end-of-text tokens, tried in this order if the file names none."""
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Keys of special tokens in the files next to a `tokenizer.json`."""
PROBES = 100
"""Tokens to try as text, to find what the post-processor adds."""
MAX_BYTES = 48 * 2**20
MAX_IDS = 2**24
HEED = 0.1
"""Maximum delay of an interrupt, in seconds."""

Result = TypeVar("Result")


class FileTokenizer(Tokenizer):
    """A tokenizer from a `tokenizer.json`; ready after `use`."""

    splits = False
    """Whether special tokens in a text are always plain text (`split_special_tokens` of its folder)."""
    _core: tokenizers.Tokenizer | None = None

    def read(self, path: Path, end_of_text: str | None = None, ends: Sequence[int] = ()) -> None:
        """Load the tokenizer from the file `path`; see the function `read`."""
        found = read(path, end_of_text, ends)
        try:
            self.use(*found)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def use(self, core: tokenizers.Tokenizer, end_of_text: str | None) -> None:
        """Use the tokenizer `core`, with the end-of-text token `end_of_text`."""
        core.no_truncation()
        core.no_padding()
        if getattr(core.model, "dropout", None):
            core.model.dropout = None  # BPE dropout would give one text many encodings
        self._core = core
        self.vocab_size = max(core.get_vocab(with_added_tokens=True).values()) + 1
        self.prefix, self.suffix = _frame(core)
        beyond = [i for i in (*self.prefix, *self.suffix) if i >= self.vocab_size]
        if beyond:
            raise ValueError(f"the post-processor adds the id {beyond[0]}; the largest id is {self.vocab_size - 1}")
        self.end_of_text = None if end_of_text is None else core.token_to_id(end_of_text)
        self.invalid_byte = core.token_to_id("<0xFF>")
        added = core.get_added_tokens_decoder().items()
        self._special = {i: token.content for i, token in added if token.special}
        self.needs_training = False

    def train(self, texts: Iterator[str]) -> None:
        """Do nothing: the tokenizer is already trained."""

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        core = self._reading(split_special_tokens)
        with _plain_errors([text]):
            return core.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_batch(
        self, texts: list[str], *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[NDArray[Any]]:
        core = self._reading(split_special_tokens)
        with _plain_errors(texts):
            found = interruptible(lambda: core.encode_batch_fast(texts, add_special_tokens=add_special_tokens))
        return [np.asarray(encoding.ids, dtype=np.uint32) for encoding in found]

    def encode_spans(self, texts: list[str], *, split_special_tokens: bool = False) -> list[Spans]:
        core = self._reading(split_special_tokens)
        with _plain_errors(texts):
            found = interruptible(lambda: core.encode_batch(texts, add_special_tokens=False))
        return [(np.asarray(encoding.ids, dtype=np.uint32), encoding.token_to_chars) for encoding in found]

    def decode(self, tokens: list[int]) -> str:
        return self._ready.decode([t for t in ids_of(tokens) if t < self.vocab_size], skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        end = None if self.end_of_text is None else self._ready.id_to_token(self.end_of_text)
        write(folder, self._ready, end, splits=self.splits)

    @property
    def fingerprint(self) -> str:
        return digest(self._ready) + ("-split" if self.splits else "")

    @property
    def special_tokens(self) -> dict[int, str]:
        return self._special

    @property
    def _ready(self) -> tokenizers.Tokenizer:
        if self._core is None:
            raise ValueError(f"tokenizer '{self.name}' must be trained before use")
        return self._core

    def _reading(self, split_special_tokens: bool) -> tokenizers.Tokenizer:
        """The core, set to tokenize special tokens in a text as plain text, or as themselves."""
        self._ready.encode_special_tokens = split_special_tokens or self.splits
        return self._ready


def read(
    path: Path, end_of_text: str | None = None, ends: Sequence[int] = ()
) -> tuple[tokenizers.Tokenizer, str | None]:
    """The tokenizer in the file `path`, and its end-of-text token.

    That is `end_of_text`, else the token that neighboring files name, else the first known id of `ends`, else a usual
    one. Raises ValueError for a file that is missing, too large or not a tokenizer, and for invalid or duplicate ids.
    """
    text, page = _page(path)
    try:
        _bounds.check(page)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    page = {"added_tokens": page.get("added_tokens")}  # the rest, which may be large, is not needed
    try:
        core = tokenizers.Tokenizer.from_str(text)
    except BaseException as error:
        raise _translated(error, f"{path}: not a tokenizer file") from error
    _check_ids(path, core, page)
    eos = _add_named(path, core)
    if end_of_text is None:
        known = (eos, *map(core.id_to_token, ends), *KNOWN_ENDS)
        return core, next((t for t in known if t is not None and core.token_to_id(t) is not None), None)
    if core.token_to_id(end_of_text) is None:
        raise ValueError(f"{path}: has no token {end_of_text!r} to use as `end_of_text`")
    return core, end_of_text


def write(folder: Path, core: tokenizers.Tokenizer, end_of_text: str | None, *, splits: bool = False) -> None:
    """Write `tokenizer.json`, and `tokenizer_config.json` with the end-of-text token."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **({} if end_of_text is None else {"eos_token": end_of_text}),
        **({"split_special_tokens": True} if splits else {}),
    }
    for name, text in (("tokenizer.json", core.to_str()), ("tokenizer_config.json", json.dumps(config, indent=2))):
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(text + "\n", "utf-8")
        temporary.replace(folder / name)


def digest(core: tokenizers.Tokenizer) -> str:
    """SHA-256 of the saved form of `core`."""
    return hashlib.sha256(core.to_str().encode()).hexdigest()


def interruptible(work: Callable[[], Result]) -> Result:
    """Run `work` in another thread and return its result, because the library ignores Ctrl-C.

    After an interrupt the thread continues until it is done or the process ends.
    """
    found: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(HEED)
    if failed:
        raise failed[0]
    return found[0]


@contextmanager
def _plain_errors(texts: list[str]) -> Iterator[None]:
    """Turn every error of the tokenizer library, panics included, into ValueError."""
    try:
        yield
    except BaseException as error:
        for text in texts:
            check_unicode(text)
        raise _translated(error, "the tokenizer failed on this text") from error


def _translated(error: BaseException, what: str) -> BaseException:
    """`error` as a ValueError. A panic of the Rust library derives directly from BaseException."""
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
        raise ValueError(f"{path}: not a tokenizer file: {error}") from None
    if not isinstance(page, dict):
        raise ValueError(f"{path}: not a tokenizer file: must be a mapping, got {type(page).__name__}")
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
        raise ValueError(f"{path}: id {twice} belongs to several tokens: {', '.join(map(repr, owners[:4]))}")
    for added in page.get("added_tokens") or []:
        if vocabulary.get(added["content"]) != added["id"]:  # the library renumbers a token whose id is taken
            raise ValueError(f"{path}: added token {added['content']!r} cannot have the id {added['id']}")


def _add_named(path: Path, core: tokenizers.Tokenizer) -> str | None:
    """Mark the tokens that neighboring files name as special, as transformers does. Return the EOS token.

    A token that is not in the vocabulary gets no id.
    """
    files = (path.with_name("special_tokens_map.json"), path.with_name("tokenizer_config.json"))
    said: dict[str, Any] = {}
    for file in files:
        said |= _page(file)[1] if file.is_file() else {}
    listed = said.get("added_tokens_decoder")
    for token in listed.values() if isinstance(listed, dict) else ():
        made = _added_token(token)
        if made is not None and core.token_to_id(made.content) is not None:
            core.add_special_tokens([made]) if made.special else core.add_tokens([made])
    more = [said.get(key) for key in ("extra_special_tokens", "additional_special_tokens")]
    named = [said.get(use) for use in NAMED] + [t for tokens in more if isinstance(tokens, list) for t in tokens]
    for made in filter(None, map(_added_token, named)):
        added = {t.content for t in core.get_added_tokens_decoder().values()}
        if made.content not in added and core.token_to_id(made.content) is not None:
            core.add_special_tokens([made])
    eos = _added_token(said.get("eos_token"))
    return None if eos is None else eos.content


def _added_token(said: object) -> tokenizers.AddedToken | None:
    """A token from those files, written as a string or a mapping; None for anything else."""
    page = {"content": said, "special": True} if isinstance(said, str) else said
    if not isinstance(page, dict) or not isinstance(page.get("content"), str) or not page["content"]:
        return None
    flags = {
        key: page[key] for key in ("lstrip", "rstrip", "normalized", "single_word") if page.get(key) in (True, False)
    }
    special = page.get("special", True) is True
    return tokenizers.AddedToken(page["content"], special=special, **({"normalized": not special} | flags))


def _frame(core: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor adds before and after a text.

    Raises ValueError for a post-processor that does more, since it prevents tokenizing a document in parts.
    """
    probes = ("a", "0", " a", *list(core.get_vocab())[:PROBES])
    with _plain_errors([]):
        body: list[int] = []
        for probe in probes:
            body = core.encode(probe, add_special_tokens=False).ids
            if body:
                break
        whole = core.encode(probe)
    own = [i for i, sequence in enumerate(whole.sequence_ids) if sequence is not None]
    before = own[0] if own else len(whole.ids)
    if whole.ids[before : before + len(own)] == body == [whole.ids[i] for i in own]:
        return tuple(whole.ids[:before]), tuple(whole.ids[before + len(body) :])
    raise ValueError("the post-processor must only add tokens before and after a text; this one does more")
