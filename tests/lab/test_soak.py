"""The short form of ``make soak-chaos``, and that a seed is a run."""

import json
import subprocess
import sys
from itertools import islice

import pytest
from bench.soak_plan import actions


def test_a_seed_decides_what_happens() -> None:
    nodes = ["n1", "n2", "n3"]
    first, again, other = (list(islice(actions(seed, nodes), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    wanted = {"cut", "heal", "reboot", "kill-agent", "flush-rules", "scale"}
    assert {action.verb for action in first} >= wanted
    cut = 0
    for action in first:
        cut += (action.verb == "cut") - (action.verb == "heal")
        assert cut in (0, 1)
        assert action.verb not in ("cut", "reboot") or not cut or action.verb == "cut"


@pytest.mark.lab
@pytest.mark.timeout(700)
def test_after_three_minutes_of_accidents_nothing_is_out_of_place() -> None:
    """Seed 8: a flush hits the table, for the agents do not own it."""
    command = [sys.executable, "-m", "bench.soak_chaos", "--minutes", "3", "--seed", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout, done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["ok"], (outcome, done.stderr[-3000:])
    assert sum(outcome["actions"].values()) > 30
