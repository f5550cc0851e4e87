"""Import of a Hugging Face folder as a kit folder: a short spec, streamed weights, the tokenizer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from transformer_kit.convert import stream
from transformer_kit.convert.amount import check_amount, parameters_of
from transformer_kit.convert.companions import CORE, carry_in, left, unread
from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.draft import check_free, drafted
from transformer_kit.convert.errors import CONFIG, ConvertError, of_file, of_folder
from transformer_kit.convert.folder import applied, faults, matched, read_config, spec_of
from transformer_kit.convert.page import declaration_of, fitted, values_of
from transformer_kit.convert.tensors import Move
from transformer_kit.convert.ties import apart
from transformer_kit.convert.types import types_of
from transformer_kit.convert.vocabulary import shapes_of, with_rows, with_vocabulary
from transformer_kit.convert.weights import Weights
from transformer_kit.model.build import assemble
from transformer_kit.model.folder import SPEC, WEIGHTS
from transformer_kit.spec import brief
from transformer_kit.spec.schema import Spec
from transformer_kit.spec.yaml import dump


@dataclass(frozen=True)
class Imported:
    """Result of an import."""

    spec: Spec
    family: str
    tensors: int
    """Number of tensors written; 0 with `spec_only`."""
    tokenizer: bool
    """Whether the folder has a tokenizer."""
    left: list[str]
    """Names of the files that were not copied."""
    notes: list[str]
    """Notes: two sets of weights, several dtypes, missing files."""


def import_folder(
    source: str | Path,
    out: str | Path,
    *,
    spec_only: bool = False,
    pad_vocab: bool = False,
    declaration: Declaration | None = None,
) -> Imported:
    """Make the kit folder `out` from the Hugging Face folder `source`, completely or not at all.

    `spec_only` reads only the config. `pad_vocab` adds rows for ids that only the tokenizer has. Raises ConvertError
    with everything that is wrong.
    """
    source, target = Path(source), Path(out)
    check_free(target)
    config = read_config(source)
    with of_folder(source):
        declaration = fitted(declaration_of(config) if declaration is None else declaration, config)
        spec = spec_of(config, declaration, weights=not spec_only)
    rows = 0 if spec_only else _missing_rows(source, spec, pad_vocab)
    whole = spec if not rows else with_vocabulary(spec, spec.model.vocab_size + rows)
    with of_folder(source):
        parameters = parameters_of(whole, config, declaration)
    weights = None if spec_only else Weights(source, declaration.prefix)
    if weights is not None:
        check_amount(weights, parameters)
    with drafted(target) as draft:
        (draft / SPEC).write_text(text_of(whole, config, parameters), "utf-8")
        tensors = 0 if weights is None else _weights(weights, draft / WEIGHTS, spec, whole, declaration, config)
        carry_in(source, draft)
    read = [p.name for p in source.glob("*.safetensors*")] if weights is None else weights.read
    behind = left(source, [CONFIG, *read])
    notes = [*(weights.notes if weights is not None else ()), *filter(None, [unread(source)])]
    if rows:
        notes.append(f"the vocabulary got {rows} rows, each the mean of the others, for ids that only {CORE} has")
    return Imported(whole, declaration.names[0], tensors, (target / CORE).is_file(), behind, notes)


def text_of(spec: Spec, config: Mapping[str, Any], parameters: int) -> str:
    """The spec as YAML, with comments on its origin and its size."""
    named = config.get("architectures")
    classes = ", ".join(map(str, named)) if isinstance(named, list) and named else "no class named"
    head = [
        f"From a Hugging Face folder: {config.get('model_type')} ({classes:.120}).",
        f"{parameters:,} parameters. Omitted options have their defaults.",
    ]
    return "".join(f"# {_one_line(line)}\n" for line in head) + dump(brief.page(spec))


def _one_line(text: str) -> str:
    """The text on one printable line, because a class name in a config could contain a line break and YAML."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _weights(
    weights: Weights, path: Path, spec: Spec, whole: Spec, declaration: Declaration, config: Mapping[str, Any]
) -> int:
    """Write the weights of `whole`: those of `spec`, perhaps with more vocabulary rows. Return their number."""
    model = assemble(spec)
    padded = shapes_of(assemble(whole))
    found, problems = matched(weights, model, declaration)
    shapes = shapes_of(model)
    values, types = values_of(config, declaration), types_of(weights, found, model, config)

    def wrong() -> list[str]:
        there = faults(weights, found, shapes, values, types)
        return [*problems, *there, *apart(weights, declaration, model)][:40]

    if problems:
        raise ConvertError(str(weights.folder), wrong())
    tensors = _stream(found, lambda move: applied(weights, move, shapes, values, types), weights.folder, wrong)
    names = dict.fromkeys(name for move in found for name in move.ours)
    stream.write(
        path,
        [(name, types[name], padded[name]) for name in names],
        ((name, e, tensor if e is not None else with_rows(tensor, padded[name])) for name, e, tensor in tensors),
        {"format": "pt", "spec": whole.hash},
    )
    if differ := apart(weights, declaration, model):
        raise ConvertError(str(weights.folder), differ)
    return len(types)


def _stream(
    moves: list[Move],
    apply: Callable[[Move], tuple[dict[str, Tensor], list[str]]],
    folder: Path,
    wrong: Callable[[], list[str]],
) -> Iterator[tuple[str, int | None, Tensor]]:
    """Yield kit tensors by name and expert. The first wrong one raises ConvertError with all problems."""
    for move in moves:
        tensors, problems = apply(move)
        if problems:
            raise ConvertError(str(folder), wrong())
        yield from ((name, move.expert, tensor) for name, tensor in tensors.items())


def _missing_rows(source: Path, spec: Spec, pad: bool) -> int:
    """Number of tokenizer ids beyond the vocabulary. Raises ConvertError for an invalid tokenizer, or without `pad`."""
    if not (source / CORE).is_file():
        return 0
    from transformer_kit.data.tokenizer_file import load_tokenizer

    with of_file():
        tokenizer = load_tokenizer(source)
    rows = max(0, tokenizer.vocab_size - spec.model.vocab_size)
    if rows and not pad:
        raise ConvertError(
            str(source / CORE),
            [
                f"has {tokenizer.vocab_size} ids, more than the model's vocab_size ({spec.model.vocab_size}); "
                f"--pad-vocab gives the model {rows} more rows, --spec-only imports the spec alone"
            ],
        )
    return rows
