"""`kit bench`: compares the model of a spec with other implementations in one run."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from transformer_kit.cli.output import Json, emit, say
from transformer_kit.cli.pages import Sets, SpecArgument
from transformer_kit.cli.where import placed

if TYPE_CHECKING:
    from transformer_kit.bench.work import Setting


class Work(StrEnum):
    """What is measured."""

    train = "train"
    prefill = "prefill"
    decode = "decode"
    memory = "memory"


def bench(
    work: Annotated[Work, typer.Argument(help="A training step, a prompt, tokens after it, or memory in training.")],
    spec: SpecArgument,
    sets: Sets = None,
    against: Annotated[
        str,
        typer.Option(metavar="PEER,...", help="Peers, comma-separated: plain, tutorial, int8, lean or a package."),
    ] = "plain,transformers,litgpt,x-transformers",
    batch: Annotated[int, typer.Option(min=1, help="Rows.")] = 1,
    seq: Annotated[int, typer.Option(min=1, help="Tokens of a sequence, or of the prompt.")] = 256,
    new: Annotated[int, typer.Option(min=1, help="Tokens to generate after the prompt.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds; two warm-up rounds come before.")] = 7,
    device: Annotated[str, typer.Option(help="Where.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Type of products: float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: torch's own choice.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the models' layers.")] = False,
    json: Json = False,
) -> None:
    """Compare a model with its peers, in turns, a process each: time, share of the machine's limit, memory.

    Peers have the same shape, sizes, optimizer and threads; initial weights, random tokens, no dropout.

    Example: `kit bench train gpt2-124m --batch 2 --seq 512 --against plain,transformers`
    """
    from transformer_kit.bench.run import compare
    from transformer_kit.bench.show import text

    setting = _setting(batch, seq, new, device, dtype, rounds, compile)
    peers = [name.strip() for name in against.split(",") if name.strip()]
    found = compare(work.value, spec, sets or [], setting, peers, threads)
    emit(found.data()) if json else say(text(found))


def _setting(batch: int, seq: int, new: int, device: str, dtype: str, rounds: int, compile: bool) -> "Setting":
    from transformer_kit.bench.work import Setting

    where, kind = placed(device, dtype)
    assert kind is not None
    return Setting(batch, seq, new, where, kind, rounds, compile)
