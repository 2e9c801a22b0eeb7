"""Twenty leaks of every kind on a node of a lab: ``towpath ipam check`` finds exactly them and mends them."""

import json
import subprocess
import sys
from typing import Any

import pytest
from lab_objects import TOWPATH, get, lab_with_pods, pod

from attachments import attachment
from towpath.ipam import codec
from towpath.lab.client import LabClient
from towpath.model.attachment import PodRef

pytestmark = pytest.mark.lab

DATABASE = "/var/lib/towpath/leases.db"
# Nothing is collected while we look. The agent reads its store once, when it starts.
QUIET = ("TOWPATH_LEASE_GRACE_SECONDS=0", "TOWPATH_RESYNC_SECONDS=3600")
INJECT = """
import json, sqlite3, sys
rows, leases, unmarked = json.load(sys.stdin)
with sqlite3.connect(%r, timeout=300) as db:
    db.executemany("INSERT INTO attachments (container_id, ifname, body) VALUES (?, 'eth0', ?)",
                   [(container, body.encode()) for container, body in rows])
    db.executemany("INSERT INTO leases (address, container_id, ifname) VALUES (?, ?, 'eth0')", leases)
    db.executemany("DELETE FROM leases WHERE address = ?", [(text,) for text in unmarked])
"""
LEASED = """
import json, sqlite3
db = sqlite3.connect(%r, timeout=300)
print(json.dumps([text for text, in db.execute("SELECT address FROM leases")]))
"""
Leaks = tuple[list[tuple[str, str]], list[tuple[str, str]], list[str], dict[str, str]]


def python(node: str, program: str, stdin: str = "") -> str:
    command = [
        *TOWPATH,
        "lab",
        "exec",
        "--name",
        "leaks",
        node,
        "--",
        sys.executable,
        "-c",
        program % DATABASE,
    ]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(lab: LabClient, *options: str) -> tuple[int, dict[str, Any]]:
    command = [*TOWPATH, "ipam", "check", *options, "--kubeconfig", lab.kubeconfig, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {row["node"]: row for row in json.loads(done.stdout)}


def told(row: dict[str, Any], key: str = "problems") -> list[tuple[str, str]]:
    return sorted((text, p["code"]) for p in row[key] for text in p["addresses"])


def leaks(cidr: str, boot: str, living: list[dict[str, Any]], over: dict[str, Any]) -> Leaks:
    """Rows, leases, and addresses whose mark is taken away; and what each is to be found as."""
    rows: list[tuple[str, str]] = []
    leases: list[tuple[str, str]] = []
    expected: dict[str, str] = {}
    base = cidr.partition("/")[0].rpartition(".")[0]

    def leak(code: str, container: str, ref: PodRef | None = None, boot_id: str = boot) -> None:
        text = f"{base}.{100 + len(expected)}"
        expected[text] = code
        leases.append((text, container))
        if code == "TP4005":
            rows.append((container, '{"container_id": 1'))
        elif ref is not None:
            gone = f"cali{len(expected):011d}"
            fields: dict[str, Any] = {"container_id": container, "pod": ref, "boot_id": boot_id}
            rows.append((container, codec.encode(attachment("", text, host_ifname=gone, **fields)).decode()))

    for n in range(6):  # a reboot, and the pods are gone
        leak("TP4010", f"boot{n}", PodRef(namespace="default", name=f"b{n}", uid=f"b{n}"), "a former boot")
    for n in range(4):  # DEL never came
        leak("TP4010", f"gone{n}", PodRef(namespace="default", name=f"g{n}", uid=f"g{n}"))
    for n, one in enumerate(living):  # another pod has the name by now
        leak("TP4010", f"again{n}", PodRef(namespace="default", name=one["metadata"]["name"], uid="before"))
    meta = over["metadata"]
    leak("TP4010", "over", PodRef(namespace="default", name=meta["name"], uid=meta["uid"]))
    for n in range(3):
        leak("TP4013", f"orphan{n}")
    for n in range(2):
        leak("TP4005", f"damaged{n}")
    unmarked = [one["status"]["podIP"] for one in living]
    return rows, leases, unmarked, expected | dict.fromkeys(unmarked, "TP4014")


def test_twenty_leaks_of_every_kind_are_found_and_mended() -> None:
    with lab_with_pods("leaks", "--nodes", "2") as (lab, kubectl, _):
        for name in ("one", "two"):
            kubectl("apply", "-f", "-", stdin=pod(name, "n2", ports=[{"containerPort": 8080}]))
        kubectl("apply", "-f", "-", stdin=pod("over", "n2", command=["true"], restartPolicy="Never"))
        kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=240s")
        kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/over", "--timeout=240s")
        node = get(kubectl, "node", "n2")
        living = [get(kubectl, "pod", name) for name in ("one", "two")]
        boot = node["status"]["nodeInfo"]["bootID"]
        found = leaks(node["spec"]["podCIDR"], boot, living, get(kubectl, "pod", "over"))
        expected = sorted(found[3].items())
        assert len(expected) == 20 and len({code for _, code in expected}) == 4

        code, rows = check(lab)
        assert code == 0, rows
        python("n2", INJECT, json.dumps(found[:3]))
        kubectl("set", "env", "-n", "kube-system", "daemonset/towpath", *QUIET)
        kubectl("rollout", "status", "-n", "kube-system", "daemonset/towpath", "--timeout=240s")

        code, rows = check(lab)
        assert code == 3
        assert told(rows["n2"]) == expected and rows["n1"]["problems"] == []
        code, rows = check(lab, "--fix")
        assert code == 0, rows
        assert told(rows["n2"]) == expected and len(rows["n2"]["mended"]) == 20
        assert rows["n2"]["left"] == rows["n2"]["refused"] == []
        code, rows = check(lab)
        assert code == 0, rows

        pods = get(kubectl, "pods", "-A", "--field-selector", "spec.nodeName=n2,status.phase=Running")[
            "items"
        ]
        own = [p for p in pods if not p["spec"].get("hostNetwork")]
        used = {ip["ip"] for p in own for ip in p["status"]["podIPs"]}
        assert set(json.loads(python("n2", LEASED))) == used
        to = [{"addr": text, "port": 8080, "proto": "tcp"} for text in sorted(used)]
        (result,) = lab.call("run-in", probes=[{"from": {"pod": "default/one"}, "to": to}], timeout=10)
        assert all(one["ok"] for one in result["to"]), result
