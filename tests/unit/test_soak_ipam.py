"""A short form of ``make soak-ipam``: some thousand operations, with processes that are killed meanwhile."""

import json
import subprocess
import sys
from pathlib import Path


def test_no_address_twice_none_lost_none_leaked() -> None:
    command = [sys.executable, "-m", "bench.soak_ipam", "--ops", "4000", "--seed", "7"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == "" and found["kills"] >= 1
    assert found["allocations"] + found["releases"] >= 4000
