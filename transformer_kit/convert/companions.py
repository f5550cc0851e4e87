"""Files beside the weights that come in and go out unchanged, and those that stay behind."""

import shutil
from collections.abc import Collection
from pathlib import Path

from registry import untrusted
from registry.files import pointer_at
from transformer_kit.convert.errors import ConvertError, of_file
from transformer_kit.data import token_ids

CORE = "tokenizer.json"
TOKENIZER = (CORE, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""All that says how text becomes ids; the others mean nothing without the first."""
GENERATION = token_ids.GENERATION
UNREAD = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json", "tiktoken.model")
"""Tokenizers in forms that nothing here reads."""


def carried(folder: Path) -> list[str]:
    """Names of the files of a folder that are taken as they are."""
    tokenizer = TOKENIZER if (folder / CORE).is_file() else ()
    return [name for name in (*tokenizer, GENERATION) if (folder / name).is_file()]


def carry(source: Path, target: Path) -> None:
    """Copy them, as they are in a Hugging Face folder. ConvertError where one is a link to a place outside, or only
    stands for a file.
    """
    with of_file():
        untrusted.check_links(source)
    for name in carried(source):
        if (what := pointer_at(source / name)) is not None:
            raise ConvertError(str(source / name), [what])
        shutil.copyfile(source / name, target / name)


def carry_in(source: Path, target: Path) -> None:
    """Copy them into a folder of the kit's, with the ids that the config names, which has no other place there."""
    carry(source, target)
    with of_file():
        token_ids.keep(source, target)


def left(folder: Path, taken: Collection[str]) -> list[str]:
    """Names in a folder that are neither carried nor `taken`; hidden ones are not told."""
    known = {*carried(folder), *taken}
    return sorted(p.name for p in folder.iterdir() if p.name not in known and not p.name.startswith("."))


def unread(folder: Path) -> str | None:
    """What to say of a tokenizer that is there and is not taken; None when there is none, or it is taken."""
    found = [name for name in UNREAD if (folder / name).is_file()]
    if not found or (folder / CORE).is_file():
        return None
    return (
        f"{found[0]} is not read, so the model has no tokenizer; what is read is {CORE}, which transformers writes: "
        "AutoTokenizer.from_pretrained(HF_FOLDER).save_pretrained(HF_FOLDER)"
    )
