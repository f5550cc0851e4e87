"""Load tokenizers from a file, or from the cache of trained tokenizers."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers

from registry.contracts import Dataset, Tokenizer
from registry.options import plain
from registry.tokenizer._shared import MAX_IDS, FileTokenizer
from registry.untrusted import FileError
from transformer_kit.data import token_ids
from transformer_kit.data.cache import cache_folder, writing
from transformer_kit.data.pieces import cut
from transformer_kit.data.prepare import check


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, or in a folder that contains one.

    The end-of-text token is the one in `tokenizer_config.json` or `special_tokens_map.json`, else the first in the
    model's config, else a usual one. Generation stops at each of the named tokens. Raises ValueError for a file that is
    missing or not a tokenizer.
    """
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not os.path.lexists(file):
        raise FileError(path, "has no tokenizer.json; copy the one that the model was trained with into the folder")
    tokenizer = FileTokenizer(FileTokenizer.Options())
    ends = token_ids.ends(file.parent)
    tokenizer.read(file, ends=[i for i in ends if i < MAX_IDS])
    tokenizer.splits = token_ids.read_mapping(file.parent / "tokenizer_config.json").get("split_special_tokens") is True
    tokenizer.more_ends = tuple(i for i in ends if i < tokenizer.vocab_size)
    return tokenizer


def trained(
    tokenizer: Tokenizer,
    dataset: Dataset,
    cache: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Tokenizer:
    """Return `tokenizer` ready for use, trained on `dataset` if needed, at most once per dataset and options.

    `note` receives a message with the size of the training text.
    """
    if not tokenizer.needs_training:
        return tokenizer
    folder = cache_folder(cache) / "tokenizers" / _key(tokenizer, dataset)
    try:
        return load_tokenizer(folder)
    except ValueError:  # missing or damaged
        shutil.rmtree(folder, ignore_errors=True)
    check(dataset)
    tokenizer.train(_texts(dataset, tokenizer, note))
    with writing(folder) as unfinished:
        tokenizer.save(unfinished)
    return tokenizer


def _key(tokenizer: Tokenizer, dataset: Dataset) -> str:
    decisive = [dataset.fingerprint, plain(tokenizer.options), tokenizers.__version__]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def _texts(dataset: Dataset, tokenizer: Tokenizer, note: Callable[[str], None]) -> Iterator[str]:
    """Yield pieces of the training text, and send a note when it is complete."""
    size, limit = 0, getattr(tokenizer.options, "max_mb", None)
    pieces = (piece for piece, _ in cut(dataset.pieces()))
    for piece in pieces:
        size += len(piece.encode("utf-8", "surrogatepass"))
        if limit is not None and size >= limit * 1e6:
            note(_learns(tokenizer, size))
            yield piece
            return
        yield piece
    note(_learns(tokenizer, size))


def _learns(tokenizer: Tokenizer, size: int) -> str:
    limited = "; `tokenizer.max_mb` limits it" if hasattr(tokenizer.options, "max_mb") else ""
    return (
        f"tokenizer '{tokenizer.name}' trains on {size / 1e6:,.1f} MB of text, which takes long if the text has few "
        f"spaces{limited}"
    )
