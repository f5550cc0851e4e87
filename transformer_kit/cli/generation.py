"""`kit generate`: continues a prompt with a trained model."""

import os
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry import core
from registry.options import plain
from transformer_kit.cli import names
from transformer_kit.cli.output import Json, emit, harmless, note
from transformer_kit.cli.where import placed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from registry.contracts import Tokenizer
    from transformer_kit.generate.defaults import Defaults
    from transformer_kit.model.model import Model

SAMPLERS = {
    "temperature": ("temperature", "value"),
    "top_k": ("top_k", "k"),
    "top_p": ("top_p", "p"),
    "min_p": ("min_p", "p"),
}
"""Options for samplers, each with the sampler and the option that it sets, in order."""


Folder = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="A model's folder, or the folder of a run.", autocompletion=names.folders),
]
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to continue; - reads standard input.")]
Count = Annotated[
    int | None,
    typer.Option(help="Number of new tokens; default: the folder's max_new_tokens, or 128, or as many as fit."),
]
Temperature = Annotated[float | None, typer.Option(help="Divides the logits: below 1 is less random; 0 is --greedy.")]
TopK = Annotated[int | None, typer.Option(help="Keep the K most likely tokens; 0 keeps all.")]
TopP = Annotated[float | None, typer.Option(help="Keep the most likely tokens with total probability P.")]
MinP = Annotated[float | None, typer.Option(help="Drop tokens less likely than P times the most likely one.")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Always choose the most likely token.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]
Add = Annotated[
    bool, typer.Option(help="Add the tokenizer's special tokens, such as a BOS, before and after the prompt.")
]
Split = Annotated[bool, typer.Option("--split-special-tokens", help="Encode special tokens in the prompt as text.")]
Stream = Annotated[bool, typer.Option(help="Print the text as it is generated.")]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 and so on.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: as saved.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the steps: long texts are faster on a GPU.")]
Int8 = Annotated[bool, typer.Option("--int8", help="Quantize weights to int8: on a CPU, about twice as fast.")]


def generate(
    folder: Folder,
    prompt: Prompt,
    max_new_tokens: Count = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    greedy: Greedy = False,
    seed: Seed = None,
    add_special_tokens: Add = True,
    split_special_tokens: Split = False,
    stream: Stream = True,
    device: Device = "auto",
    dtype: Dtype = None,
    compile: Compile = False,
    int8: Int8 = False,
    json: Json = False,
) -> None:
    """Continue a prompt with a trained model.

    Samplers are set by these options, else by the folder's generation_config.json; the default is temperature 0.8.
    Example: `kit generate runs/quickstart "def main(" --temperature 0.7 --seed 1`
    """
    flags = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    given = {key: value for key, value in flags.items() if value is not None}
    _check(given, greedy)
    reading = {"add_special_tokens": add_special_tokens, "split_special_tokens": split_special_tokens}
    settings = {"max_new_tokens": max_new_tokens, "seed": seed, "compile": compile, **reading}
    text = _text(prompt)
    used = _used(folder, (device, dtype), given, greedy, int8)
    notes = [*used.notes(text, settings), *_notes(used.tokenizer, text, **reading)]
    pieces = used.complete(text, settings)
    if json:
        emit({"prompt": text, "text": "".join(pieces), "seed": seed, **used.data(), "notes": notes})
        return
    for line in notes:
        note(line)
    parts = chain([text], pieces, ["\n"])
    _show(parts if stream else ["".join(parts)])


@dataclass(frozen=True)
class _Used:
    """Settings of a generation."""

    model: "Model"
    tokenizer: "Tokenizer"
    samplers: list[Any]
    """The samplers in the form of a spec."""
    asked: "Defaults"

    def complete(self, prompt: str, settings: dict[str, Any]) -> "Iterator[str]":
        """The continuation of the prompt."""
        from transformer_kit.generate.text import complete

        return complete(self.model, self.tokenizer, prompt, samplers=self.samplers, **settings)

    def notes(self, prompt: str, settings: dict[str, Any]) -> "Iterator[str]":
        """Notes where settings differ from the folder's or the command's."""
        from transformer_kit.generate import sliding
        from transformer_kit.generate.text import far

        yield from self.model.spec.notes
        if self.asked.not_applied:
            yield f"generation_config.json asks for {', '.join(self.asked.not_applied)}, which the kit does not apply"
        reading = {key: settings[key] for key in ("add_special_tokens", "split_special_tokens")}
        length, count = len(self.tokenizer.encode(prompt, **reading)), settings["max_new_tokens"]
        count = far(self.model, length, self.asked) if count is None else count
        if (cropped := sliding.note(self.model.spec.model, length, count)) is not None:
            yield cropped

    def data(self) -> dict[str, Any]:
        """The settings in JSON form."""
        chosen = [plain(sampler) for sampler in self.samplers]
        return {"samplers": chosen, "eos_token_ids": self.tokenizer.ends}


def _used(folder: Path, where: tuple[str, str | None], flags: dict[str, float], greedy: bool, int8: bool) -> _Used:
    from transformer_kit.data.tokenizer_file import load_tokenizer
    from transformer_kit.generate.defaults import defaults
    from transformer_kit.model.folder import load, model_folder
    from transformer_kit.transform.prepare import prepare_for_inference

    place = model_folder(folder)
    device, dtype = placed(*where)
    model = prepare_for_inference(load(place, device=device, dtype=dtype), int8=int8)
    asked = defaults(place)
    return _Used(model, load_tokenizer(place), [] if greedy else _samplers(flags, asked.sampling), asked)


def _notes(tokenizer: "Tokenizer", text: str, add_special_tokens: bool, split_special_tokens: bool) -> "Iterator[str]":
    """Notes about likely mistakes with special tokens in the prompt."""
    from transformer_kit.generate.text import spelled

    found = [] if split_special_tokens else spelled(tokenizer, text)
    if found:
        some = ", ".join(found[:4]) + (" and others" if len(found) > 4 else "")
        yield (
            f"the prompt contains special tokens, which are encoded as such: {some}; "
            "--split-special-tokens encodes them as text"
        )
    first = tokenizer.special_tokens.get(tokenizer.prefix[0]) if tokenizer.prefix and add_special_tokens else None
    if first in found and text.startswith(str(first)):
        yield f"the tokenizer adds {first} too, so the prompt has it twice; --no-add-special-tokens adds none"


def _check(flags: dict[str, float], greedy: bool) -> None:
    """Raise BadParameter for flags that no sampler takes."""
    if greedy and flags:
        raise typer.BadParameter(f"--greedy uses no sampler; leave out {_option(next(iter(flags)))}")
    for flag, value in flags.items():
        if not _is_off(flag, value):
            _sampler(flag, value)


def _samplers(flags: dict[str, float], asked: "Mapping[str, float] | None") -> list[Any]:
    """Samplers from the flags and from what the folder asks for, which the flags override."""
    if not flags and asked is None:
        from transformer_kit.spec.schema import Sample

        return list(Sample().samplers)
    if flags.get("temperature") == 0 or not (flags or asked):
        return []
    values = {key: value for key, value in ({**(asked or {}), **flags}).items() if not _is_off(key, value)}
    return [_sampler(key, values[key]) for key in SAMPLERS if key in values] or [_sampler("temperature", 1.0)]


def _is_off(flag: str, value: float) -> bool:
    """Whether the value is the one by which other tools switch a sampler off, or choose the likeliest."""
    return value in {"temperature": (0,), "top_k": (0, -1), "min_p": (0,)}.get(flag, ())


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
        return _unicode(prompt)
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 text: byte {error.start}: {error.reason}") from None


def _unicode(argument: str) -> str:
    """An argument that is UTF-8, whatever the locale took it for."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:  # the text's own lone surrogates, which the tokenizer names
        return argument


def _show(pieces: "Iterable[str]") -> None:
    tame = harmless if sys.stdout.isatty() else str
    for piece in pieces:
        sys.stdout.write(tame(piece))
        sys.stdout.flush()
