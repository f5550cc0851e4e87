"""`kit`: the commands, and the conversion of their failures to messages and exit codes."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from registry.words import likely
from transformer_kit import __version__
from transformer_kit.cli import bench, catalogue, cost, doctor, exchange, generation, pages, start, training
from transformer_kit.cli.failures import GOOD, INTERRUPTED, failure
from transformer_kit.cli.hints import hint
from transformer_kit.cli.output import console, fail, is_terminal, lose_nothing, say


class Kit(TyperGroup):
    """Turns exceptions of commands into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of `ctx`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console(stderr=True).print("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except (Exception, MemoryError) as error:
            if isinstance(error, (typer.Exit, typer.Abort, BrokenPipeError)):
                raise
            hint(error)
            if hasattr(error, "format_message") and not ctx.obj:
                raise  # the parser shows its own errors, with the usage
            failed = failure(error)
            if failed is None:
                raise
            try:
                fail(failed, as_json=bool(ctx.obj))
            except OSError:  # stdout itself cannot be written
                fail(failed, as_json=False)
            raise typer.Exit(failed.code) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first argument; similar names are suggested."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            near = likely(args[0], self.list_commands(ctx))
            if near:
                ctx.fail(f"No such command '{args[0]}'. Did you mean {' or '.join(map(repr, near))}?")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note early whether errors are to be JSON."""
        words = args[: args.index("--")] if "--" in args else args
        ctx.obj = "--json" in words
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Kit,
    name="kit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if is_terminal() else None,  # boxes and colors are for a terminal
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 the run failed, 2 the spec or the command is wrong, 3 the environment, "
    "4 it does not fit. With --json each command prints one object on stdout, and kit train one on each line; its "
    "`errors` is a list of objects with the keys file, line, column, path, via and text.",
)

for name, command, summary in (
    ("list", catalogue.list_parts, "List all parts and specs."),
    ("show", catalogue.show, "Show one part in full."),
    ("check", pages.check, "Check specs and list their faults."),
    ("explain", pages.explain, "Show where a value comes from."),
    ("build", cost.build, "Show the parts and the cost of a model."),
    ("new", start.new, "Start a spec or a plugin."),
    ("train", training.train, "Train a model."),
    ("generate", generation.generate, "Continue a prompt."),
    ("bench", bench.bench, "Compare a model with its peers."),
    ("import", exchange.import_model, "Convert from a Hugging Face folder."),
    ("export", exchange.export_model, "Convert to a Hugging Face folder."),
    ("doctor", doctor.doctor, "Show features and speed of this machine."),
    ("schema", pages.schema, "Print the JSON schema of specs."),
):
    app.command(name, short_help=summary)(command)


def _version(asked: bool) -> None:
    if asked:
        say(f"kit {__version__}")
        raise typer.Exit(GOOD)


@app.callback()
def kit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Transformers from one page of YAML: every word names an interchangeable part.

    First steps: `kit list` shows the parts, `kit build tutorial` what a model costs,
    `kit train quickstart` trains one, `kit new run NAME` starts your own spec.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run one command line and exit with its code."""
    lose_nothing(sys.stdout, sys.stderr)
    app(args=args, prog_name="kit")
