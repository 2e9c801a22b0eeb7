"""What runs inside pods and namespaces, without click: a prober, or what answers it.

python -m towpath.probe run PLAN            PLAN as JSON; or -: a line of standard input,
                                                     and the run ends when that is closed
python -m towpath.probe serve NAME PORT/PROTOCOL…    PROTOCOL one of TCP, UDP, DNS
"""

import sys

import msgspec


def _line(fd: int) -> bytes:
    """One line, and nothing of what comes after it."""
    with open(fd, "rb", buffering=0, closefd=False) as file:
        return file.readline()


def main() -> int:
    """The command line's entry."""
    match sys.argv[1:]:
        case ["run", text]:
            from towpath.probe.plan import Plan
            from towpath.probe.prober import run

            raw = _line(0) if text == "-" else text.encode()
            try:
                plan = msgspec.json.decode(raw, type=Plan)
            except msgspec.DecodeError as bad:
                print(f"towpath.probe: no plan: {bad}", file=sys.stderr)  # noqa: T201
                return 2
            run(plan, 0 if text == "-" else None)
        case ["serve", name, *ports] if ports:
            from towpath.probe.echo import serve

            try:
                serve(name, ports)
            except ValueError as bad:
                print(f"towpath.probe: {bad}", file=sys.stderr)  # noqa: T201
                return 2
        case _:
            print(__doc__, file=sys.stderr)  # noqa: T201
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
