"""``python -m towpath.agent``: the agent without click, for whoever starts many (the lab) or often.

Flags are those of ``towpath agent``: ``--setting=value`` or ``--setting value``.
"""

import sys

from towpath.agent.config import SETTINGS
from towpath.agent.main import AgentFailed, run

_EXIT_USAGE, _EXIT_PRECONDITION = 2, 7


def parse_flags(arguments: list[str]) -> dict[str, str]:
    """Flags by setting name. Raises AgentFailed on what is no flag."""
    options = {setting.option: setting.name for setting in SETTINGS} | {"--config": "config"}
    flags: dict[str, str] = {}
    rest = list(reversed(arguments))
    while rest:
        option, equals, value = rest.pop().partition("=")
        if option not in options:
            raise AgentFailed(f"{option!r} is no flag; known: {', '.join(sorted(options))}", usage=True)
        if not equals:
            if not rest:
                raise AgentFailed(f"{option} needs a value", usage=True)
            value = rest.pop()
        flags[options[option]] = value
    return flags


def main() -> None:
    """Run, and end with the exit codes of the command line."""
    try:
        run(parse_flags(sys.argv[1:]))
    except AgentFailed as e:
        print(f"towpath agent: {e}", file=sys.stderr)  # noqa: T201
        sys.exit(_EXIT_USAGE if e.usage else _EXIT_PRECONDITION)


if __name__ == "__main__":
    main()
