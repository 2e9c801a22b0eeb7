"""Look at this node, and print one line of JSON (``towpath.inventory.node_report``).

python -m towpath.node_reader [--host FOLDER] [--churn SECONDS] [--keep]

FOLDER is where the node's / is mounted (default /). It reads only.
"""

import base64
import sys
import zlib
from argparse import ArgumentParser
from pathlib import Path

import msgspec

from towpath.node_reader.host import Host
from towpath.node_reader.read import Reader


def main() -> int:
    """The command line's entry."""
    parser = ArgumentParser(prog="python -m towpath.node_reader")
    parser.add_argument("--host", type=Path, default=Path("/"))
    parser.add_argument("--churn", type=float, default=0.0)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--packed", action="store_true", help="zlib and base64, as a pod's log carries it")
    given = parser.parse_args()
    report = Reader(Host(given.host)).report(churn=given.churn, keep=given.keep)
    line = msgspec.json.encode(report)
    sys.stdout.buffer.write((base64.b64encode(zlib.compress(line)) if given.packed else line) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
