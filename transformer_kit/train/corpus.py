"""The data of a run: which tokenizer, and batches to learn from and to evaluate on."""

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
"""Tokens, and places, that a corpus is recognised by."""


@dataclass(frozen=True)
class Corpus:
    """Batches by number, and what they were made of."""

    training: Stream
    validation: Stream | None
    """None when no share of the corpus is kept for it."""
    bytes_per_token: float
    """Of the validation share's text."""
    fingerprints: dict[str, str]
    """What the batches are made of: a run goes on only with the same."""
    tokenizer: Tokenizer | None = None
    """None when tokens stand for no text; then there are no samples."""
    validation_batches: int | None = None
    """How many hold every target once; None when that is not known."""


def choose_tokenizer(spec: RunSpec, base: Path, origin: Path | None, kept: Path | None, report: Reporter) -> Tokenizer:
    """The tokenizer of the run.

    base    folder that relative paths start from
    origin  the trained folder that the run starts from, whose tokens its weights know
    kept    the folder of the run that is resumed, which keeps what was used from the start
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
        report.note(f"text becomes tokens as in {folder}; the spec's `tokenizer` is not used")
    return load_tokenizer(folder)


def open_corpus(spec: RunSpec, base: Path, tokenizer: Tokenizer, seq_len: int, report: Reporter) -> Corpus:
    """The corpus of the spec, tokenized now or found in the cache, in batches of `seq_len` targets.

    Raises SpecError when the model has fewer ids than the tokenizer, or cannot take the sample's prompt, and for a
    corpus that cannot be used.
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
    """Say what about the ids of a corpus is easily not meant."""
    if tokenizer.end_of_text is None:
        report.note(
            "nothing ends a document: the tokenizer names no end of text, so documents follow each other without a "
            "mark; name the token by `tokenizer.end_of_text`, or by `eos_token` in the tokenizer_config.json of --from"
        )
    if not store.spelled:
        return
    counts = ", ".join(f"{token!r} ({n:,})" for token, n in [*store.spelled.items()][:4])
    more = "" if len(store.spelled) <= 4 else f" and {len(store.spelled) - 4} others"
    report.note(
        f"the corpus spells special tokens, which are read as such: {counts}{more}; "
        "`train.split_special_tokens: true` reads them as text"
    )
    before = [tokenizer.special_tokens.get(i) for i in tokenizer.prefix] if train.add_special_tokens else []
    twice = [token for token in before if token in store.spelled]
    if twice:
        report.note(
            f"the tokenizer puts {twice[0]!r} before each document, and the corpus spells it too; where documents "
            "begin with it, choose `train.add_special_tokens: false`"
        )


def _pass(validation: Batches, spec: RunSpec, report: Reporter) -> int:
    """Batches in one pass over the validation share, said where fewer than the spec asks for."""
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
    """Hash of a corpus's size and of its tokens in many places: files may be moved and touched, not changed."""
    digest = hashlib.sha256(f"{len(store)} {len(store.ends)}".encode())
    places = np.linspace(0, max(0, len(store) - BLOCK), BLOCKS, dtype=np.int64)
    for place in np.unique(places):
        digest.update(store.tokens[place : place + BLOCK].tobytes())
    return digest.hexdigest()
