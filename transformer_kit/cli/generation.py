"""`kit generate`: a trained folder continues a prompt."""

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry import core
from transformer_kit.cli import names
from transformer_kit.cli.output import Json, emit, harmless, note
from transformer_kit.cli.where import placed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SAMPLERS = {
    "temperature": ("temperature", "value"),
    "top_k": ("top_k", "k"),
    "top_p": ("top_p", "p"),
    "min_p": ("min_p", "p"),
}
"""This command's own words for samplers: option, and the sampler with the one option that it sets. In order."""


FAR = 128
"""Tokens that are written when nobody says how many."""


def generate(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A model's folder, or the folder of a run.", autocompletion=names.folders),
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to continue; - reads standard input.")],
    max_new_tokens: Annotated[
        int | None, typer.Option(help="How far, in tokens; 128 when not given, or as far as the model reaches.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Divides the logits: below 1 is safer.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Choose among the K likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Choose among the likeliest that hold P together.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Leave out what is below P of the likeliest.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always take the likeliest.")] = False,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
    stream: Annotated[bool, typer.Option(help="Print the text while it comes.")] = True,
    device: Annotated[str, typer.Option(help="Where: auto, cpu, cuda, cuda:1 and so on.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; as saved when not given.")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the steps: a GPU writes long texts faster.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write with weights rounded to 8 bits: a processor is twice as fast.")
    ] = False,
    json: Json = False,
) -> None:
    """Continue a prompt with a trained model.

    Example: `kit generate runs/quickstart "def main(" --temperature 0.7 --seed 1`
    """
    flags = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    samplers = _samplers({key: value for key, value in flags.items() if value is not None}, greedy)
    text = _text(prompt)
    settings = {"samplers": samplers, "seed": seed, "compile": compile, "int8": int8}
    pieces = _complete(folder, text, max_new_tokens, (device, dtype), **settings)
    if json:
        emit({"prompt": text, "text": "".join(pieces), "seed": seed})
        return
    parts = chain([text], pieces, ["\n"])
    _show(parts if stream else ["".join(parts)])


def _complete(
    folder: Path, text: str, count: int | None, where: tuple[str, str | None], **settings: Any
) -> "Iterator[str]":
    from transformer_kit.data.tokenizer_file import load_tokenizer
    from transformer_kit.generate.sliding import note as sliding_note
    from transformer_kit.generate.sliding import slides
    from transformer_kit.generate.text import complete
    from transformer_kit.model.folder import load, model_folder

    place = model_folder(folder)
    device, dtype = placed(*where)
    model = load(place, device=device, dtype=dtype)
    tokenizer = load_tokenizer(place)
    length, size = len(tokenizer.encode(text)), model.spec.model
    if count is None:
        count = FAR if slides(size) else max(1, min(FAR, size.max_seq_len - length))
    if (cropped := sliding_note(size, length, count)) is not None:
        note(cropped)
    return complete(model, tokenizer, text, max_new_tokens=count, **settings)


def _samplers(flags: dict[str, float], greedy: bool) -> list[Any]:
    """Samplers as a page writes them; the usual ones of a run's samples when no flag says how."""
    if greedy and flags:
        raise typer.BadParameter(f"--greedy leaves nothing to choose, so it goes without {_option(next(iter(flags)))}")
    if greedy:
        return []
    if flags:
        return [_sampler(flag, value) for flag, value in flags.items()]
    from transformer_kit.spec.schema import Sample

    return list(Sample().samplers)


def _sampler(flag: str, value: float) -> Any:
    """Options of the sampler that a flag stands for. Raises BadParameter in the flag's own words."""
    from pydantic import ValidationError

    name, option = SAMPLERS[flag]
    try:
        return core.get("sampler", name).Options.model_validate({option: value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].replace("Input should", "must")
        raise typer.BadParameter(f"{_option(flag)} {reason}, got {value}") from None


def _option(flag: str) -> str:
    return f"--{flag.replace('_', '-')}"


def _text(prompt: str) -> str:
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 text: byte {error.start}: {error.reason}") from None


def _show(pieces: "Iterable[str]") -> None:
    tame = harmless if sys.stdout.isatty() else str
    for piece in pieces:
        sys.stdout.write(tame(piece))
        sys.stdout.flush()
