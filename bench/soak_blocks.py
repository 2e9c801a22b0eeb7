"""Block mode's state machine (``tests/unit/test_blocks_machine.py``), as many examples as one has time for.

Nodes race for blocks, die at any write, hear of each other late, and Calico takes addresses in between. An
example is up to 80 steps. The first that breaks a promise is shrunk and shown; exit 1.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test


def main() -> None:
    """Run; the last line of stdout is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000)
    wanted = parser.parse_args().examples
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))
    machine = __import__("test_blocks_machine").Blocks
    begun = time.monotonic()
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=wanted, stateful_step_count=80, deadline=None, database=None),
    )
    seconds = round(time.monotonic() - begun, 1)
    print(
        json.dumps({"soak": "blocks", "examples": wanted, "steps_each": 80, "seconds": seconds, "wrong": ""})
    )


if __name__ == "__main__":
    main()
