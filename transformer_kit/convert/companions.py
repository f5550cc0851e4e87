"""Files next to the weights: those that import and export copy unchanged, and those that they skip."""

import shutil
from collections.abc import Collection
from pathlib import Path

from registry import untrusted
from registry.files import pointer_at
from transformer_kit.convert.errors import ConvertError, of_file
from transformer_kit.data import token_ids

CORE = "tokenizer.json"
TOKENIZER = (CORE, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files of the tokenizer; without the first, the others have no meaning."""
GENERATION = token_ids.GENERATION
UNREAD = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json", "tiktoken.model")
"""Tokenizer files in formats that the kit does not read."""


def carried(folder: Path) -> list[str]:
    """Names of the files in a folder that are copied unchanged."""
    tokenizer = TOKENIZER if (folder / CORE).is_file() else ()
    return [name for name in (*tokenizer, GENERATION) if (folder / name).is_file()]


def carry(source: Path, target: Path) -> None:
    """Copy these files from a Hugging Face folder. Raises ConvertError for a link that leads outside, and for a Git LFS
    pointer.
    """
    with of_file():
        untrusted.check_links(source)
    for name in carried(source):
        if (what := pointer_at(source / name)) is not None:
            raise ConvertError(str(source / name), [what])
        shutil.copyfile(source / name, target / name)


def carry_in(source: Path, target: Path) -> None:
    """Copy these files into a kit folder, with the special token ids of the config."""
    carry(source, target)
    with of_file():
        token_ids.keep(source, target)


def left(folder: Path, taken: Collection[str]) -> list[str]:
    """Names in a folder that are neither copied nor `taken`, without hidden files."""
    known = {*carried(folder), *taken}
    return sorted(p.name for p in folder.iterdir() if p.name not in known and not p.name.startswith("."))


def unread(folder: Path) -> str | None:
    """A note about a tokenizer in an unsupported format; None if there is none, or a supported one."""
    found = [name for name in UNREAD if (folder / name).is_file()]
    if not found or (folder / CORE).is_file():
        return None
    return (
        f"{found[0]} is not read, so the model has no tokenizer; what is read is {CORE}, which transformers writes: "
        "AutoTokenizer.from_pretrained(HF_FOLDER).save_pretrained(HF_FOLDER)"
    )
