"""The special token ids of a model folder: bos, eos and pad.

    config.json             in a Hugging Face folder
    token_ids.json          the ids of a former config.json, in a kit folder
    generation_config.json  the same ids again, in both kinds of folders; it may name further EOS ids

`load_tokenizer` reads all EOS ids here. An export writes every id unchanged.
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
    """The special token ids of the folder's config. Raises FileError for values other than ids and null."""
    path = folder / KEPT
    return _ids(path if path.is_file() else folder / CONFIG)


def ends(folder: Path) -> tuple[int, ...]:
    """Every EOS id of the folder's config or its generation_config.json. Raises FileError for invalid values."""
    said = [configured(folder).get(EOS), _ids(folder / GENERATION).get(EOS)]
    listed = [i for ids in said if ids is not None for i in (ids if isinstance(ids, list) else [ids])]
    return tuple(dict.fromkeys(i for i in listed if i >= 0))


def keep(source: Path, target: Path) -> None:
    """Copy the special token ids of the folder `source` into the kit folder `target`."""
    said = configured(source)
    if said:
        (target / KEPT).write_text(json.dumps(said, indent=2) + "\n", "utf-8")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if there is no file. Raises FileError for anything else."""
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
