"""Every ``towpath`` command that the README and the docs show exists, with the options it is shown with."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from towpath.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What stands for options in a page, and what ends a command in a shell.
STANDS_FOR_OPTIONS, SHELL = {"SKIP", "…", "..."}, {"|", "||", "&", "&&", ">", ">>", ";", "\\"}
# A span that shows alternatives in prose is no command.
PROSE = re.compile(r"[|\[\]…]|\.\.\.")


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if match := re.match(r"\s*(?:\$ )?(towpath .*)", line):
                    yield page.name, match[1].split(" #")[0].strip()
        outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`(towpath [^`]+)`", outside):
            if not PROSE.search(span):
                yield page.name, " ".join(span.split())


FOUND = sorted(set(commands()))


def words(line: str) -> list[str]:
    told = shlex.split(line, comments=True)[1:]
    end = next((at for at, word in enumerate(told) if word in SHELL), len(told))
    return [word for word in told[:end] if word not in STANDS_FOR_OPTIONS]


@pytest.mark.parametrize(("page", "line"), FOUND, ids=[f"{page}: {line}" for page, line in FOUND])
def test_a_command_that_is_shown_exists(page: str, line: str) -> None:
    command: click.Command = cli
    name, left = "towpath", words(line)
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        if not left or left[0].startswith("-"):
            return  # the group itself
        found = command.get_command(context, left[0])
        assert found is not None, f"{page} shows {line!r}: there is no {left[0]!r}"
        command, name, left = found, left[0], left[1:]
    parser = command.make_parser(click.Context(command, info_name=name))
    with contextlib.suppress(click.BadOptionUsage):  # prose names an option without its value
        parser.parse_args(list(left))


def test_pages_show_commands() -> None:
    assert len(FOUND) > 60
