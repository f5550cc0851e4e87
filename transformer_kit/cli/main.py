"""`kit`: the commands, and the one place where their failures become messages and exit codes."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from transformer_kit import __version__
from transformer_kit.cli import catalogue, cost, generation, pages, start, training
from transformer_kit.cli.failures import GOOD, INTERRUPTED, failure
from transformer_kit.cli.output import console, emit, fail


class Kit(TyperGroup):
    """Turns what commands raise into one message and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            console(stderr=True).print("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except (Exception, MemoryError) as error:
            if isinstance(error, (typer.Exit, typer.Abort, BrokenPipeError)):
                raise
            if hasattr(error, "format_message") and not ctx.obj:
                raise  # the parser shows its own errors, with the usage
            failed = failure(error)
            if failed is None:
                raise
            fail(failed, as_json=bool(ctx.obj))
            raise typer.Exit(failed.code) from None

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Note, before anything can be wrong, whether errors are to be JSON."""
        words = args[: args.index("--")] if "--" in args else args
        ctx.obj = "--json" in words
        return super().parse_args(ctx, args)  # type: ignore[arg-type]


app = typer.Typer(
    cls=Kit,
    name="kit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 good, 1 the run failed, 2 the page or the command is wrong, 3 the environment, "
    "4 it does not fit. With --json, errors are JSON on stdout as well.",
)

app.command("list")(catalogue.list_parts)
app.command("show")(catalogue.show)
app.command("check")(pages.check)
app.command("explain")(pages.explain)
app.command("schema")(pages.schema)
app.command("build")(cost.build)
app.command("new")(start.new)
app.command("train")(training.train)
app.command("generate")(generation.generate)


def _version(asked: bool) -> None:
    if asked:
        version = {"version": __version__, "python": sys.version.split()[0]}
        emit(version) if "--json" in sys.argv else typer.echo(f"kit {__version__}")
        raise typer.Exit(GOOD)


@app.callback()
def kit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Transformers from one page of YAML: every word names an interchangeable part.

    First steps: [bold]kit list[/] shows the parts, [bold]kit build tutorial[/] what a model costs,
    [bold]kit train quickstart[/] trains one, [bold]kit new run NAME[/] starts your own page.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run one command line and leave the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows ?, not a traceback
    app(args=args, prog_name="kit")
