"""Data on stdout in the form asked for; progress on stderr, and only to a terminal."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

FORMATS = ("table", "wide", "json", "yaml", "jsonl")

MARKS = {"ok": "green", "warning": "yellow", "error": "red"}


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-o FORMAT``, the same for every verb."""
    return formats_option(*FORMATS)(command)


def formats_option(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``-o FORMAT``, the first the default, for a verb that has formats of its own."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Output format.",
    )


def colour_wanted() -> bool:
    """Colour only on a terminal that can show it, and never with ``NO_COLOR`` (no-color.org)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def mark(text: str, state: str) -> str:
    """Text in the state's colour where colour is wanted; the text itself must carry the meaning."""
    return click.style(text, fg=MARKS[state]) if colour_wanted() else text


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, no_headers: bool = False) -> str:
    """Columns as kubectl prints them: upper-case heads, three spaces between, no lines."""
    body = [list(row) for row in rows]
    lines = body if no_headers else [list(headers), *body]
    widths = [max((len(click.unstyle(line[i])) for line in lines), default=0) for i in range(len(headers))]
    padded = (
        "   ".join(
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(line, widths, strict=True)
        )
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def emit(data: Any, output: str, as_table: Callable[[], str]) -> None:
    """Write ``data`` (plain dicts and lists) in the machine formats, ``as_table()`` in the human ones."""
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    elif output == "jsonl":
        for row in data if isinstance(data, list) else [data]:
            click.echo(json.dumps(row, separators=(",", ":")))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False), nl=False)
    else:
        click.echo(as_table())


_EVERY = 1.0
_last_line = 0.0


def progress(message: str) -> None:
    """One line of progress: rewritten in place on a terminal; elsewhere plain lines, one a second at most."""
    global _last_line
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{message}", nl=False, err=True)
    elif (now := time.monotonic()) - _last_line >= _EVERY:
        _last_line = now
        click.echo(message, err=True)


def progress_done() -> None:
    """Clear the progress line on a terminal."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
