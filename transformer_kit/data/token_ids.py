"""The ids that a model's folder names by their use: bos, eos and pad.

    config.json             in a Hugging Face folder
    token_ids.json          what a config.json said of them, in a folder of the kit's
    generation_config.json  the same ids once more, in both kinds of folders; it may name further ends

`load_tokenizer` takes all ends from here, and an export writes every id as it came.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import untrusted

KEPT, CONFIG, GENERATION = "token_ids.json", "config.json", "generation_config.json"
NAMES = ("bos_token_id", "eos_token_id", "pad_token_id")
EOS = "eos_token_id"

TokenIds = dict[str, int | list[int] | None]


def configured(folder: Path) -> TokenIds:
    """What the folder's config says of its ids, under the keys that it has. FileError for anything but ids and null."""
    path = folder / KEPT
    return _ids(path if path.is_file() else folder / CONFIG)


def ends(folder: Path) -> tuple[int, ...]:
    """Every id that the folder's config or its generation_config.json names as an end. FileError for anything else."""
    said = [configured(folder).get(EOS), _ids(folder / GENERATION).get(EOS)]
    listed = [i for ids in said if ids is not None for i in (ids if isinstance(ids, list) else [ids])]
    return tuple(dict.fromkeys(i for i in listed if i >= 0))


def keep(source: Path, target: Path) -> None:
    """Write what the folder `source` says of its ids into the kit's folder `target`."""
    said = configured(source)
    if said:
        (target / KEPT).write_text(json.dumps(said, indent=2) + "\n", "utf-8")


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file with a mapping; an empty one where there is no file. FileError for anything else."""
    return untrusted.mapping(path) if path.exists() else {}


def _ids(path: Path) -> TokenIds:
    return {name: _checked(path, name, value) for name, value in _said(read_mapping(path)).items()}


def _said(page: Mapping[str, Any]) -> dict[str, Any]:
    return {name: page[name] for name in NAMES if name in page}


def _checked(path: Path, name: str, value: Any) -> int | list[int] | None:
    each = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(i, int) and not isinstance(i, bool) for i in each):
        raise untrusted.FileError(path, f"{name} must be an id, a list of ids or null, got {value!r:.60}")
    return value
