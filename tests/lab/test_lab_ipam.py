"""``towpath ipam`` in a running lab."""

import json
import subprocess

import pytest
from lab_objects import TOWPATH

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab


def test_every_node_tells_of_its_addresses(lab: LabClient) -> None:
    command = [*TOWPATH, "ipam", "show", "--kubeconfig", lab.kubeconfig, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)
    assert [(r["family"], r["size"], r["source"]) for r in rows] == [
        ("IPv4", 253, "leases"),
        ("IPv6", (1 << 64) - 2, "leases"),
    ] * 3
