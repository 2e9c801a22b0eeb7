"""What is told of a lab when a test fails."""

import pytest
from lab_objects import Kubectl, eventually, get, pod
from lab_state import keep

from cluster_state import LINES, WIDTH, Memory
from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab


def test_what_is_not_well_is_told_of_the_first_failure_and_no_more_than_fits(
    lab: LabClient, kubectl: Kubectl
) -> None:
    kubectl("apply", "-f", "-", stdin=pod("ill", command=["sh", "-c", "exit 3"], restartPolicy="Never"))
    eventually(lambda: get(kubectl, "pod", "ill")["status"]["phase"] == "Failed")
    memory = Memory()
    keep("test_this", [lab.name, "another"], memory)
    kubectl("delete", "pod", "ill", "--timeout=240s")
    assert memory.lines[0] == "when test_this failed"
    (told,) = [line for line in memory.lines if "pod default/ill: Failed on n" in line]
    assert "main terminated Error 3" in told
    whole = "\n".join(memory.lines)
    for part in ("control plane: ", "kubelet of n1: ", "agent on n3: ", "lab 'another' is not running"):
        assert part in whole
    assert len(memory.lines) <= LINES and max(map(len, memory.lines)) <= WIDTH
    keep("test_that", [lab.name], memory)
    assert "\n".join(memory.lines) == whole
