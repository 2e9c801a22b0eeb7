"""``make docs``: the command line's reference, from the program itself, as Markdown and as man pages.

    python -m docs.generate            writes docs/cli.md and docs/man/*.1
    python -m docs.generate --check    exit 1 if docs/cli.md is not what the program says
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from towpath import __version__
from towpath.cli.main import cli
from towpath.model.codes import CODES

HERE = Path(__file__).parent


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Context]]:
    """Every command below ``command``, itself first, with a context to ask it for its texts."""
    context = click.Context(command, info_name=name)
    yield name, context
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            if below is not None and not below.hidden:
                yield from commands(below, f"{name} {verb}")


def options(context: click.Context) -> list[tuple[str, str]]:
    """Pairs of an option as it is typed and its help."""
    records = (p.get_help_record(context) for p in context.command.get_params(context))
    return [record for record in records if record is not None]


def text(context: click.Context) -> str:
    """A command's help without the indentation of the source it was written in."""
    return inspect.cleandoc(context.command.help or "")


def usage(context: click.Context) -> str:
    """The usage line without its heading."""
    return " ".join(context.command.collect_usage_pieces(context))


def markdown() -> str:
    """docs/cli.md."""
    parts = ["# The command line\n\nWritten by `make docs` from the program itself.\n"]
    for name, context in commands(cli, "towpath"):
        parts.append(f"## {name}\n\n    {name} {usage(context)}\n\n{text(context)}\n")
        rows = [f"- `{flag}`: {words}" for flag, words in options(context) if words]
        if rows:
            parts.append("\n".join(rows) + "\n")
    parts.append("## Findings\n\nThe same as `towpath explain TPnnnn`.\n")
    parts += [f"- **{code}** {entry.title} *{entry.fix}*" for code, entry in sorted(CODES.items())]
    return "\n".join(parts) + "\n"


def man(name: str, context: click.Context) -> str:
    """One page of section 1, in man(7) macros."""
    title = name.replace(" ", "-").upper()
    words = text(context)
    lines = [
        f'.TH {title} 1 "" "towpath {__version__}"',
        ".SH NAME",
        f"{name.replace(' ', '-')} \\- {words.splitlines()[0].rstrip('.') if words else name}",
        ".SH SYNOPSIS",
        f".B {name}",
        usage(context),
        ".SH DESCRIPTION",
        words.replace("\n\n", "\n.PP\n"),
        ".SH OPTIONS",
    ]
    for flag, help_text in options(context):
        lines += [".TP", f".B {flag}", help_text or ""]
    return "\n".join(lines).replace("`", "") + "\n"


def main() -> int:
    """Write, or compare."""
    page = HERE / "cli.md"
    if "--check" in sys.argv:
        return 0 if page.exists() and page.read_text() == markdown() else 1
    page.write_text(markdown())
    folder = HERE / "man"
    folder.mkdir(exist_ok=True)
    for name, context in commands(cli, "towpath"):
        (folder / f"{name.replace(' ', '-')}.1").write_text(man(name, context))
    return 0


if __name__ == "__main__":
    sys.exit(main())
