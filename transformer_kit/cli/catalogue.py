"""`kit list` and `kit show`: all parts, and one part in full."""

from typing import Annotated, Any

import typer

from registry import core, plugins
from registry.words import meaning, suggest
from transformer_kit.cli import names
from transformer_kit.cli.output import Json, emit, note, rows, say
from transformer_kit.spec.shipped import names as shipped_names
from transformer_kit.spec.shipped import shipped

SHIPPED = ("models", "runs")


def list_parts(
    family: Annotated[
        str | None,
        typer.Argument(metavar="[FAMILY]", help="Only this family, or: models, runs.", autocompletion=names.families),
    ] = None,
    json: Json = False,
) -> None:
    """List the parts that a spec may name, family by family, and the shipped specs.

    Example: `kit list position`
    """
    sound, problems = usable_plugins()
    with core.activate(frozenset(sound)):
        chosen = [*core.families(), *SHIPPED] if family is None else [_known(family)]
        listed = {name: _section(name) for name in chosen}
    if json:
        emit({"families": listed, "plugins": sound, "problems": problems})
        return
    for name, section in listed.items():
        say(f"{name}  {section['summary']}", style="bold cyan")
        rows([(f"  {part['name']}", part["summary"]) for part in section["parts"]], ("bold", ""))
    for problem in problems:
        note(problem)


def _known(family: str) -> str:
    known = [*core.families(), *SHIPPED]
    if family not in known:
        near = "" if meaning(family, known) else _places(family)
        raise core.UnknownFamily(f"no family '{family}'{near or suggest(family, known)}")
    return family


def usable_plugins() -> tuple[list[str], list[str]]:
    """Usable plugins, and faults of the others."""
    found = {name: plugins.problem(name) for name in plugins.namespaces()}
    problems = [text for text in found.values() if text is not None]
    families = core.families()
    for entry in plugins.all_entries():
        if not entry.namespace and entry.distribution not in " ".join(problems):
            problems.append(f"{entry.source} claims the bare name '{entry.name}', which is the core's")
        if entry.family not in families:
            problems.append(f"{entry.source} offers '{entry.name}' for '{entry.family}', which is no family")
    return [name for name, text in found.items() if text is None], problems


def _section(family: str) -> dict[str, Any]:
    if family in SHIPPED:
        paths = [shipped() / family / f"{name}.yaml" for name in shipped_names(family)]
        parts = [{"name": path.stem, "summary": _heading(path.read_text("utf-8")), "plugin": None} for path in paths]
        return {"summary": f"{family.capitalize()} that come with the kit.", "parts": parts}
    parts = [
        {"name": name, "summary": core.summary(family, name), "plugin": name.partition(".")[0] if "." in name else None}
        for name in core.names(family)
    ]
    return {"summary": core.family_summary(family), "parts": parts}


def _heading(page: str) -> str:
    """The first line of a spec, which is a comment."""
    first = page.split("\n", 1)[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def show(
    part: Annotated[str, typer.Argument(metavar="FAMILY/NAME", help="The part.", autocompletion=names.parts)],
    json: Json = False,
) -> None:
    """Show one part: its options, source, papers and capabilities, and an example. FAMILY/NAME/GROUP shows a group of
    its options.

    Example: `kit show position/rope`
    """
    from transformer_kit.cli.card import describe

    family, slash, name = part.partition("/")
    name, _, group = name.partition("/")
    if not slash:
        raise typer.BadParameter(f"must be FAMILY/NAME, as in position/rope, got '{part}'{_places(part)}")
    with core.activate(frozenset(usable_plugins()[0])):
        card = describe(family, name)
    if group and group not in card["groups"]:
        known = suggest(group, list(card["groups"])) if card["groups"] else "; it has none"
        raise typer.BadParameter(f"{family}/{name} has no group of options '{group}'{known}")
    if json:
        emit(card)
    elif group:
        say(f"{family}/{name}/{group}", style="bold cyan")
        say(card["groups"][group])
        _options([o for o in card["options"] if o["name"].startswith(f"{group}.")])
    else:
        _show(card)


def _show(card: dict[str, Any]) -> None:
    part = f"{card['family']}/{card['name']}"
    say(part, style="bold cyan")
    say(card["documentation"])
    for paper in card["papers"]:
        say(f"paper   {paper}")
    for key, value in card["capabilities"].items():
        say(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    say(f"source  {card['source']}")
    _options([o for o in card["options"] if o["name"].partition(".")[0] not in card["groups"]])
    if card["groups"]:
        say(f"\nmore options: `kit show {part}/{next(iter(card['groups']))}`", style="bold")
        inside = {g: [o["name"].partition(".")[2] for o in card["options"]
                      if o["name"].startswith(f"{g}.")] for g in card["groups"]}  # fmt: skip
        rows([(f"  {group}", f"{text} {', '.join(inside[group])}") for group, text in card["groups"].items()])
    say("\nexample, for a spec that begins with `extends: quickstart`", style="bold")
    say(card["example"])


def _options(options: list[dict[str, Any]]) -> None:
    say("\noptions" if options else "\nno options", style="bold")
    lines = []
    for option in options:
        default = "required" if option["required"] else f"= {_yaml(option['default'])}"
        kind = option["type"].removesuffix(" or null")  # the default says it
        lines.append((f"  {option['name']}", kind, default, option["documentation"]))
    rows(lines, ("bold", "", "", "dim"))


def _yaml(value: Any) -> str:
    from transformer_kit.cli.example import inline

    return inline(value)


def _places(word: str) -> str:
    """The parts of this name, or else those that have it as a synonym."""
    found = {f: meaning(word, core.names(f)) for f in core.families()}
    exact = [f"{f}/{word}" for f, names in found.items() if word in names]
    near = exact or [f"{f}/{name}" for f, names in found.items() for name in names]
    return f"; did you mean {' or '.join(near)}?" if near else ""
