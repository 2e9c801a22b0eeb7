"""What the fault verbs break, and that the cluster mends itself."""

from collections.abc import Iterator

import pytest
from lab_objects import Kubectl, deployment, eventually, get, pod, towpath

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True, scope="module")
def pods(lab: LabClient, kubectl: Kubectl) -> Iterator[None]:
    """Echo pods on every node."""
    kubectl("apply", "-f", "-", stdin=deployment("victims", 6))
    kubectl("rollout", "status", "deployment/victims", "--timeout=240s")
    yield
    kubectl("delete", "deployment", "victims", "--timeout=240s")


def unreachable(lab: LabClient, kubectl: Kubectl, timeout: float = 20) -> list[object]:
    """Probes that fail among the pods, both families."""
    found = get(kubectl, "pods", "-l", "app=victims")["items"]
    to = [{"addr": ip["ip"], "port": 8080, "proto": "tcp"} for p in found for ip in p["status"]["podIPs"]]
    probes = [{"from": {"pod": f"default/{p['metadata']['name']}"}, "to": to} for p in found]
    results = lab.call("run-in", probes=probes, timeout=timeout)
    return [(r["from"], t) for r in results for t in r["to"] if not t["ok"]]


def ready(kubectl: Kubectl, node: str) -> str:
    conditions = get(kubectl, "node", node)["status"]["conditions"]
    return next(str(c["status"]) for c in conditions if c["type"] == "Ready")


def restarts(kubectl: Kubectl, node: str) -> dict[str, int]:
    """Of the agent there, and of the echo pods."""
    there = ("-A", "--field-selector", f"spec.nodeName={node}")
    agents = get(kubectl, "pods", *there, "-l", "k8s-app=towpath")["items"]
    victims = get(kubectl, "pods", *there, "-l", "app=victims")["items"]
    return {
        p["metadata"]["name"]: c["restartCount"]
        for p in (*agents, *victims)
        for c in p["status"].get("containerStatuses", [])
    }


def test_dropped_routes_and_flushed_rules_come_back(lab: LabClient, kubectl: Kubectl) -> None:
    dropped = towpath("drop-route", "--name", lab.name, "n1").stdout
    assert "10.42." in dropped
    assert "fd00:10:42:" in dropped
    towpath("flush-rules", "--name", lab.name, "n2")
    eventually(lambda: not unreachable(lab, kubectl, timeout=2))


def test_unknown_places_are_named(lab: LabClient) -> None:
    failed = towpath("drop-route", "--name", lab.name, "n1", "192.0.2.0/24", check=False)
    assert failed.returncode == 7
    assert "no such route" in failed.stderr
    assert "there is no node 'n9'" in towpath("cut", "--name", lab.name, "n9", check=False).stderr


def test_a_killed_agent_is_started_again_and_loses_nothing(lab: LabClient, kubectl: Kubectl) -> None:
    before = restarts(kubectl, "n1")
    towpath("kill-agent", "--name", lab.name, "n1")
    assert not unreachable(lab, kubectl)
    agent = next(name for name in before if name.startswith("towpath-"))
    eventually(lambda: restarts(kubectl, "n1")[agent] == before[agent] + 1)
    kubectl("wait", "--for=condition=Ready", f"pod/{agent}", "-n", "kube-system", "--timeout=240s")


def test_a_reboot_keeps_the_disk_and_restarts_the_pods(lab: LabClient, kubectl: Kubectl) -> None:
    before, boot = restarts(kubectl, "n2"), get(kubectl, "node", "n2")["status"]["nodeInfo"]["bootID"]
    towpath("reboot", "--name", lab.name, "n2")

    def back() -> bool:
        now = restarts(kubectl, "n2")
        info = get(kubectl, "node", "n2")["status"]["nodeInfo"]
        return info["bootID"] != boot and now == {name: count + 1 for name, count in before.items()}

    eventually(back)
    kubectl("rollout", "status", "deployment/victims", "--timeout=240s")
    eventually(lambda: not unreachable(lab, kubectl, timeout=2))
    shell = "ls /run/netns | wc -l; ls /var/lib/cni/results | wc -l; ip -o link | grep -c ': cali'"

    def counts() -> set[str]:
        return set(towpath("exec", "--name", lab.name, "n2", "--", "sh", "-c", shell).stdout.split())

    eventually(lambda: len(counts()) == 1)  # what the last boot left behind is gone


def test_what_must_not_run_twice_does_not(lab: LabClient, kubectl: Kubectl) -> None:
    for name, command in (("done", "true"), ("under-way", "sleep 1000")):
        words = command.split()
        kubectl("apply", "-f", "-", stdin=pod(name, "n3", command=words, restartPolicy="Never"))
    eventually(lambda: get(kubectl, "pod", "done")["status"]["phase"] == "Succeeded")
    kubectl("wait", "--for=condition=Ready", "pod/under-way", "--timeout=240s")
    towpath("reboot", "--name", lab.name, "n3")
    eventually(lambda: get(kubectl, "pod", "under-way")["status"]["phase"] == "Failed")
    assert get(kubectl, "pod", "done")["status"]["phase"] == "Succeeded"
    kubectl("delete", "pod", "done", "under-way", "--timeout=240s")
    eventually(lambda: not unreachable(lab, kubectl, timeout=2))


def test_a_kubelet_that_dies_finds_its_pods_again(lab: LabClient, kubectl: Kubectl) -> None:
    before = restarts(kubectl, "n1")
    towpath("exec", "--name", lab.name, "n1", "--", "pkill", "-9", "-x", "kubelet")
    kubectl("apply", "-f", "-", stdin=pod("newcomer", "n1"))
    kubectl("wait", "--for=condition=Ready", "pod/newcomer", "--timeout=240s")
    now = restarts(kubectl, "n1")
    assert {name: now[name] for name in before} == before
    eventually(lambda: get(kubectl, "deployment", "victims")["status"].get("readyReplicas") == 6)
    kubectl("delete", "pod", "newcomer", "--timeout=240s")


def test_the_agent_rolls_like_any_daemonset(lab: LabClient, kubectl: Kubectl) -> None:
    kubectl("rollout", "restart", "daemonset/towpath", "-n", "kube-system")
    kubectl("rollout", "status", "daemonset/towpath", "-n", "kube-system", "--timeout=240s")
    assert not unreachable(lab, kubectl)
    shell = 'grep -E "CapPrm|CapEff|CapBnd|NoNewPrivs" /proc/$(pgrep -o -f towpath[.]agent)/status'
    limits = towpath("exec", "--name", lab.name, "n2", "--", "sh", "-c", shell).stdout.split()
    net_admin = f"{1 << 12:016x}"
    assert limits == ["CapPrm:", net_admin, "CapEff:", net_admin, "CapBnd:", net_admin, "NoNewPrivs:", "1"]


def test_a_cut_node_is_missed_and_welcomed_back(lab: LabClient, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=pod("stranded", "n3", ports=[{"containerPort": 8080}]))
    kubectl("wait", "--for=condition=Ready", "pod/stranded", "--timeout=240s")
    to = [{"addr": get(kubectl, "pod", "stranded")["status"]["podIP"], "port": 8080, "proto": "tcp"}]

    def reached(timeout: float = 2) -> bool:
        (result,) = lab.call("run-in", probes=[{"from": {"node": "n1"}, "to": to}], timeout=timeout)
        return all(t["ok"] for t in result["to"])

    assert reached(timeout=20)
    towpath("cut", "--name", lab.name, "n3")
    try:
        assert not reached()
        eventually(lambda: ready(kubectl, "n3") == "Unknown")
    finally:
        towpath("heal", "--name", lab.name, "n3")
    eventually(lambda: ready(kubectl, "n3") == "True")
    eventually(lambda: reached() and not unreachable(lab, kubectl, timeout=2))
    kubectl("delete", "pod", "stranded", "--timeout=240s")


def test_traffic_survives_the_api_server(lab: LabClient, kubectl: Kubectl) -> None:
    before = unreachable(lab, kubectl)
    found = get(kubectl, "pods", "-l", "app=victims")["items"]
    to = [{"addr": p["status"]["podIP"], "port": 8080, "proto": "tcp"} for p in found]
    towpath("api-down", "--name", lab.name)
    try:
        with pytest.raises(AssertionError, match="refused"):
            kubectl("get", "nodes")
        (result,) = lab.call("run-in", probes=[{"from": {"node": "n1"}, "to": to}])
        assert before == []
        assert all(t["ok"] for t in result["to"])
        assert '"api": "down"' in towpath("ps", "--name", lab.name, "-o", "json").stdout
    finally:
        towpath("api-up", "--name", lab.name)
    eventually(lambda: '"api": "up"' in towpath("ps", "--name", lab.name, "-o", "json").stdout)

    def answers() -> bool:
        try:
            return len(get(kubectl, "pods", "-l", "app=victims")["items"]) == 6
        except AssertionError:
            return False

    eventually(answers)
