"""The command line as a spec, read from the program itself."""

import re
from typing import Any

import typer

from transformer_kit.cli.main import app

_MARKUP = re.compile(r"\[/?[a-z ]*\]")


def commands(note: str) -> str:
    """Every command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    lines = [note, "# Commands", "", _prose(group.help), ""]
    lines += [_prose(group.epilog), "", "`transformer-kit` and `python -m transformer_kit` are the same program.", ""]
    context = group.context_class(group, info_name="kit")
    for name, command in group.commands.items():
        lines += _section(name, command, context)
    return "\n".join(lines).strip() + "\n"


def _section(name: str, command: Any, above: Any) -> list[str]:
    context = command.context_class(command, info_name=name, parent=above)
    usage = " ".join(["kit", name, *command.collect_usage_pieces(context)])
    usage = re.sub(r"[{}]|\.{3}(?=\.)|\[(?=\[)|\](?=\])", "", usage)
    lines = [f"## {name}", "", "```text", usage, "```", "", _prose(command.help), ""]
    told = [p for p in command.params if getattr(p, "help", None) and not getattr(p, "hidden", False)]
    if told:
        lines += ["| argument or option | default | what |", "|---|---|---|"]
        lines += [f"| `{_written(p)}` | {_default(p)} | {_cell(p.help)} |" for p in told]
        lines.append("")
    return lines


def _written(parameter: Any) -> str:
    value = parameter.metavar or parameter.name.upper()
    if parameter.param_type_name == "argument":
        return str(value).replace("|", "\\|")
    flags = "`, `".join([*parameter.opts, *parameter.secondary_opts])
    return flags if parameter.is_flag else f"{flags} {value}"


def _default(parameter: Any) -> str:
    default = None if callable(parameter.default) else parameter.default
    return "required" if parameter.required else "" if default in (None, False, True, (), []) else f"`{default}`"


def _prose(text: str | None) -> str:
    """Help text with its emphasis as code."""
    paragraphs = re.split(r"\n\s*\n", text or "")
    joined = "\n\n".join(" ".join(p.split()) for p in paragraphs)
    return _MARKUP.sub("`", joined)


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")
