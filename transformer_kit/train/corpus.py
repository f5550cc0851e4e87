"""The data of a run: its tokenizer, and the batches for training and evaluation."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from registry.contracts import Tokenizer
from transformer_kit.data.batches import Batches, Split
from transformer_kit.data.prepare import Reading, prepare
from transformer_kit.data.store import TokenStore
from transformer_kit.data.tokenizer_file import load_tokenizer, trained
from transformer_kit.spec.place import at
from transformer_kit.spec.schema import RunSpec, Train
from transformer_kit.train.report import Reporter
from transformer_kit.train.sample import check_prompt
from transformer_kit.train.step import Stream

BLOCK, BLOCKS = 1 << 16, 64
"""Tokens of a block, and number of blocks, in the fingerprint of a corpus."""


@dataclass(frozen=True)
class Corpus:
    """Numbered batches and their source."""

    training: Stream
    validation: Stream | None
    """None when no share of the corpus is held out for validation."""
    bytes_per_token: float
    """Bytes per token of the validation share."""
    fingerprints: dict[str, str]
    """Fingerprints of the data; a resumed run requires the same ones."""
    tokenizer: Tokenizer | None = None
    """None when tokens stand for no text; then the run generates no samples."""
    validation_batches: int | None = None
    """Number of batches in one pass over the validation share; None when unknown."""


def choose_tokenizer(spec: RunSpec, base: Path, origin: Path | None, kept: Path | None, report: Reporter) -> Tokenizer:
    """The tokenizer of the run.

    base    folder that relative paths start from
    origin  the trained folder that the run starts from; its weights require its tokenizer
    kept    the folder of the resumed run, which keeps the tokenizer of its start
    """
    with at(spec, "tokenizer"):
        own: Tokenizer = spec.tokenizer.part(spec.tokenizer, base)
    if origin is None and not own.needs_training:
        return own
    folder = origin if kept is None else kept
    if folder is None:
        with at(spec, "data"):
            return trained(own, spec.data.part(spec.data, base), note=report.note)
    if kept is None:
        report.note(f"the tokenizer of {folder} is used; the spec's `tokenizer` is not")
    return load_tokenizer(folder)


def open_corpus(spec: RunSpec, base: Path, tokenizer: Tokenizer, seq_len: int, report: Reporter) -> Corpus:
    """The corpus of the spec in batches of `seq_len` targets, tokenized now or loaded from the cache.

    Raises SpecError when the model has fewer ids than the tokenizer, when it cannot take the sample's prompt, and for
    a corpus that cannot be used.
    """
    check_vocabulary(spec, tokenizer)
    check_prompt(spec, tokenizer)
    with at(spec, "data"):
        store = prepare(
            spec.data.part(spec.data, base), tokenizer, progress=report.tokenizing, reading=_reading(spec.train)
        )
        training = _batches(store, spec, "train", seq_len)
        validation = _batches(store, spec, "validation", seq_len) if spec.train.validation > 0 else None
    _note_tokens(store, spec.train, tokenizer, report)
    measured = training if validation is None else validation
    marks = {"tokens": fingerprint(store), "tokenizer": tokenizer.fingerprint}
    once = None if validation is None else _pass(validation, spec, report)
    return Corpus(training, validation, measured.bytes_per_token, marks, tokenizer, once)


def _reading(train: Train) -> Reading:
    return Reading(train.add_special_tokens, train.split_special_tokens)


def _note_tokens(store: TokenStore, train: Train, tokenizer: Tokenizer, report: Reporter) -> None:
    """Report likely mistakes about special tokens in a corpus."""
    if tokenizer.end_of_text is None:
        report.note(
            "documents follow each other without an end token, since the tokenizer names no end of text; "
            "set `tokenizer.end_of_text`, or `eos_token` in the tokenizer_config.json of --from"
        )
    if not store.spelled:
        return
    counts = ", ".join(f"{token!r} ({n:,})" for token, n in [*store.spelled.items()][:4])
    more = "" if len(store.spelled) <= 4 else f" and {len(store.spelled) - 4} others"
    report.note(
        f"the corpus contains special tokens, which are encoded as such: {counts}{more}; "
        "`train.split_special_tokens: true` encodes them as text"
    )
    before = [tokenizer.special_tokens.get(i) for i in tokenizer.prefix] if train.add_special_tokens else []
    twice = [token for token in before if token in store.spelled]
    if twice:
        report.note(
            f"the tokenizer adds {twice[0]!r} before each document, and the corpus contains it too; if documents "
            "begin with it, choose `train.add_special_tokens: false`"
        )


def _pass(validation: Batches, spec: RunSpec, report: Reporter) -> int:
    """Batches in one pass over the validation share; reports when the spec asks for more."""
    count = validation.per_pass
    if count < spec.evaluate.batches:
        report.note(f"the validation share has {count} of the {spec.evaluate.batches} batches of `evaluate.batches`")
    return count


def check_vocabulary(spec: RunSpec, tokenizer: Tokenizer) -> None:
    """SpecError when the model has fewer ids than the tokenizer."""
    have, needed = spec.model.vocab_size, tokenizer.vocab_size
    with at(spec, "model", "vocab_size"):
        if needed > have:
            raise ValueError(f"must be at least the tokenizer's ({needed}), got {have}")


def _batches(store: TokenStore, spec: RunSpec, split: Split, seq_len: int) -> Batches:
    train = spec.train
    return Batches(
        store,
        split,
        batch_size=train.batch_size,
        seq_len=seq_len,
        validation=train.validation,
        seed=train.seed,
        document_mask=train.document_mask,
    )


def fingerprint(store: TokenStore) -> str:
    """Hash of a corpus's size and of tokens at many positions. Moving or touching files does not change it."""
    digest = hashlib.sha256(f"{len(store)} {len(store.ends)}".encode())
    places = np.linspace(0, max(0, len(store) - BLOCK), BLOCKS, dtype=np.int64)
    for place in np.unique(places):
        digest.update(store.tokens[place : place + BLOCK].tobytes())
    return digest.hexdigest()
