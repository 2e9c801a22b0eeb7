"""The short form of ``make soak-chaos``, and that a seed is a run."""

import json
import subprocess
import sys
from itertools import islice
from typing import Any

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
def test_after_a_minute_of_accidents_nothing_is_out_of_place() -> None:
    """Seed 8: a flush hits the table, for the agents do not own it.

    A machine that stalls loses packets for reasons of its own, and once more they are not lost. All else must
    be right at once.
    """
    outcome = soaked()
    if outcome["lost_without"]:
        outcome = soaked()
    assert outcome["ok"], outcome
    assert sum(outcome["actions"].values()) > 10


def soaked() -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.soak_chaos", "--minutes", "1.2", "--seed", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=440, check=False)
    assert done.stdout, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert outcome["settled"] and outcome["verified"], (outcome, done.stderr[-3000:])
    return outcome
