"""Export of a model as a Hugging Face folder: config.json, generation_config.json, sharded safetensors, tokenizer.

The family is the first declaration whose config, imported again, gives the same model.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from registry.contracts import Tokenizer
from registry.core import suggest
from registry.options import plain
from transformer_kit.convert.check import Comparison, against_transformers
from transformer_kit.convert.companions import GENERATION, carry
from transformer_kit.convert.config import longest, shortest, solutions_with_sizes
from transformer_kit.convert.declaration import Declaration, declarations
from transformer_kit.convert.draft import check_free, drafted
from transformer_kit.convert.errors import CONFIG, ConvertError
from transformer_kit.convert.folder import read_config, translated
from transformer_kit.convert.layout import outward
from transformer_kit.convert.nearest import Miss, differing, inexpressible, refusal
from transformer_kit.convert.page import fitted, page_of, values_of
from transformer_kit.convert.tensors import Move, constants, moves, outgoing
from transformer_kit.convert.weights import INDEX, ONE, Weights
from transformer_kit.convert.widths import with_widths
from transformer_kit.data import token_ids
from transformer_kit.model.build import assemble
from transformer_kit.model.changes import changes
from transformer_kit.model.model import Model
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.schema import Spec

SHARD = 5 * 10**9
"""Maximum bytes of a weights file, unless a single tensor is larger."""
KINDS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Match:
    """A family that represents the model exactly."""

    declaration: Declaration
    config: dict[str, Any]
    comparison: Comparison = field(default_factory=lambda: Comparison(None, "not asked for"))
    """Result of comparing logits with `transformers`."""


def match(model: Model, family: str | Declaration | None = None) -> Match:
    """The family that represents the model exactly. Raises ConvertError with the nearest families."""
    page = plain(model.spec)
    twin = assemble(model.spec)
    sized = with_widths(page, twin)
    misses: list[Miss] = []
    for declaration in _ordered(family):
        try:
            solved = solutions_with_sizes(page, sized, declaration)
            config = longest(*solved, declaration)
            other = assemble(Spec.of(page_of({**config, "model_type": declaration.names[0]}, declaration)))
        except (ConvertError, SpecError, KeyError, TypeError, ValueError) as error:
            misses.append(inexpressible(page, declaration, error))
            continue
        miss = differing(twin, other, declaration)
        if miss is None:
            return Match(fitted(declaration, config), shortest(*solved, declaration))
        misses.append(miss)
    what = "no Hugging Face class computes this model exactly" + ("; nearest come" if family is None else "")
    raise refusal(what, misses, model.spec)


def _ordered(family: str | Declaration | None) -> list[Declaration]:
    """The distinct declarations, by rank, or only the requested one."""
    if isinstance(family, Declaration):
        return [family]
    known = declarations()
    if family is not None and family not in known:
        raise ConvertError("export", [f"no family '{family}' is declared{suggest(family, sorted(known))}"])
    chosen = {id(d): d for name, d in known.items() if family in (None, name)}
    return sorted(chosen.values(), key=lambda d: (d.rank, d.names[0]))


def export(
    model: Model,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    family: str | Declaration | None = None,
    shard: int = SHARD,
    beside: Path | None = None,
    compare: bool = False,
) -> Match:
    """Write the model as a Hugging Face folder, completely or not at all. Raises ConvertError.

    The import reads the folder again and must give the same tensors, bit for bit. Tokenizer and generation files of
    the folder `beside` are copied unchanged. With `compare`, `transformers` loads the folder too, and different logits
    are an error.
    """
    target = Path(folder)
    check_free(target)
    changed = changes(model)
    if changed:
        raise ConvertError("export", ["the model is not what its spec describes; change the spec", *changed])
    found = match(model, family)
    with drafted(target) as draft:
        _write(model, found, draft, tokenizer, shard, _ids(model, tokenizer, beside))
        if beside is not None:
            carry(beside, draft)
        _verify(model, found.declaration, draft)
        if compare:
            found = replace(found, comparison=against_transformers(draft, found.declaration))
    return found


def _ids(model: Model, tokenizer: Tokenizer | None, beside: Path | None) -> token_ids.TokenIds:
    """The special token ids: those of the imported folder, else the tokenizer's EOS. An unknown id is null, so that the
    class's default does not apply.
    """
    said = {} if beside is None else token_ids.configured(beside)
    ids = {name: said.get(name) for name in token_ids.NAMES}
    if ids[token_ids.EOS] in (None, []):
        ids[token_ids.EOS] = None if tokenizer is None else tokenizer.end_of_text
    pad = ids["pad_token_id"]
    if not isinstance(pad, int) or pad >= model.spec.model.vocab_size:
        ids["pad_token_id"] = None  # the class rejects a padding index outside its table
    return ids


def _write(
    model: Model, found: Match, folder: Path, tokenizer: Tokenizer | None, shard: int, ids: token_ids.TokenIds
) -> None:
    kind = KINDS.get(model.embedding.weight.dtype, "float32")
    config = {
        "architectures": found.declaration.classes,
        "model_type": found.declaration.names[0],
        "torch_dtype": kind,
        **ids,
        **found.config,
        **{name: value for name, value in ids.items() if value is not None},  # a null id may need the class's own value
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / GENERATION).write_text(json.dumps({"do_sample": False, **ids}, indent=2) + "\n", "utf-8")
    _write_weights(_theirs(model, found), folder, shard)
    if tokenizer is not None:
        tokenizer.save(folder)


def _theirs(model: Model, found: Match) -> Iterator[tuple[str, Tensor]]:
    """Yield the checkpoint tensors, one group at a time."""
    ours = model.state_dict()
    shapes = {name: tuple(t.shape) for name, t in ours.items()}
    made = moves(found.declaration, shapes, len(model.blocks()))
    left = set(ours) - {name for move in made for name in move.ours}
    if left:
        raise ConvertError("export", [f"{found.declaration.names[0]} has no name for {name}" for name in sorted(left)])
    values = values_of(found.config, found.declaration)
    for theirs, group in outgoing(made).items():
        yield from zip(theirs, _together(group, ours, shapes, values), strict=True)
    for name, value in constants(found.declaration, len(model.blocks())).items():
        yield name, torch.tensor(value, dtype=model.embedding.weight.dtype)


def _together(
    group: list[Move], ours: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Any]
) -> list[Tensor]:
    names = [n for m in group for n in m.ours]
    if len({ours[n].dtype for n in names}) > 1:
        one = ", ".join(group[0].theirs)
        raise ConvertError("export", [f"{', '.join(names)} are of several types, and {one} must have one type"])
    parts = [outward(m.own(ours), m.ops, [shape[0] for shape in m.own_shapes(shapes)], values) for m in group]
    if group[0].part is None:
        return parts[0]
    stacked = [torch.stack(tensors) for tensors in zip(*parts, strict=True)]
    return [t.flatten(0, 1) for t in stacked] if group[0].part[2] else stacked


def _write_weights(tensors: Iterator[tuple[str, Tensor]], folder: Path, limit: int) -> None:
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    total = size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > limit:
            shards.append(_shard(held, folder, len(shards)))
            held, size = {}, 0
        held[name] = tensor.contiguous()
        size, total = size + tensor.nbytes, total + tensor.nbytes
    shards.append(_shard(held, folder, len(shards)))
    if len(shards) == 1:
        (folder / "part-0").rename(folder / ONE)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for i, name in enumerate(names):
        (folder / f"part-{i}").rename(folder / name)
    where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _shard(tensors: dict[str, Tensor], folder: Path, number: int) -> list[str]:
    path = folder / f"part-{number}"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod((folder / CONFIG).stat().st_mode)  # safetensors restricts reading to the owner
    return list(tensors)


def _verify(model: Model, declaration: Declaration, folder: Path) -> None:
    again = translated(Weights(folder), model, declaration, read_config(folder))
    wrong = [name for name, tensor in model.state_dict().items() if not torch.equal(again[name], tensor.cpu())]
    if wrong:
        raise ConvertError("export", [f"{name} differs after reading the folder again" for name in wrong])
