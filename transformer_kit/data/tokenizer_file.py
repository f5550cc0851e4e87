"""Tokenizers that exist already: in a file, or in the cache after they were trained once."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import tokenizers

from registry.contracts import Dataset, Tokenizer
from registry.options import plain
from registry.tokenizer._shared import FileTokenizer, read
from transformer_kit.data.cache import cache_folder, writing
from transformer_kit.data.pieces import cut
from transformer_kit.data.prepare import check


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, or in a folder that holds one.

    The token that ends a document is what a `tokenizer_config.json` beside it names, else a usual one that it has.
    Raises ValueError for a file that is missing or is no tokenizer.
    """
    tokenizer = FileTokenizer(FileTokenizer.Options())
    tokenizer.use(*read(path / "tokenizer.json" if path.is_dir() else path))
    return tokenizer


def trained(tokenizer: Tokenizer, dataset: Dataset, cache: Path | None = None) -> Tokenizer:
    """`tokenizer`, ready for use: trained on `dataset` if it needs to be, at most once per dataset and options."""
    if not tokenizer.needs_training:
        return tokenizer
    folder = cache_folder(cache) / "tokenizers" / _key(tokenizer, dataset)
    try:
        return load_tokenizer(folder)
    except ValueError:  # not there, or damaged
        shutil.rmtree(folder, ignore_errors=True)
    check(dataset)
    tokenizer.train(_texts(dataset))
    with writing(folder) as unfinished:
        tokenizer.save(unfinished)
    return tokenizer


def _key(tokenizer: Tokenizer, dataset: Dataset) -> str:
    decisive = [dataset.fingerprint, plain(tokenizer.options), tokenizers.__version__]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def _texts(dataset: Dataset) -> Iterator[str]:
    return (piece for piece, _ in cut(dataset.pieces()))
