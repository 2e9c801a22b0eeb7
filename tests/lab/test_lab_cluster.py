"""The lab as an operator meets it: real agents, real kubectl, traffic on the kernel's own paths."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from lab_objects import TOWPATH, Kubectl, deployment, eventually, get, pod, towpath

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def web(lab: LabClient, kubectl: Kubectl) -> list[dict[str, Any]]:
    """Nine echo pods, Ready."""
    kubectl("apply", "-f", "-", stdin=deployment("web", 9))
    kubectl("rollout", "status", "deployment/web", "--timeout=240s")
    found: list[dict[str, Any]] = get(kubectl, "pods", "-l", "app=web")["items"]
    return found


def names(pods: list[dict[str, Any]]) -> list[str]:
    return [f"default/{p['metadata']['name']}" for p in pods]


def addresses(pods: list[dict[str, Any]]) -> list[str]:
    return [entry["ip"] for p in pods for entry in p["status"]["podIPs"]]


def test_nodes_are_what_an_operator_expects(lab: LabClient, kubectl: Kubectl) -> None:
    nodes = get(kubectl, "nodes")["items"]
    assert [n["metadata"]["name"] for n in nodes] == ["n1", "n2", "n3"]
    for number, node in enumerate(nodes):
        internal = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
        assert internal == [f"172.30.0.{11 + number}", f"fd00:172:30::{11 + number}"]
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert (conditions["Ready"], conditions["NetworkUnavailable"]) == ("True", "False")
        assert len(node["spec"]["podCIDRs"]) == 2
        (image,) = [i["names"] for i in node["status"]["images"] if "towpath-agent" in i["names"][1]]
        assert "@sha256:" in image[0]
    assert len({n["status"]["nodeInfo"]["machineID"] for n in nodes}) == 3
    daemonset = get(kubectl, "daemonset", "-n", "kube-system", "towpath")
    assert daemonset["status"]["numberReady"] == 3


def test_everybody_reaches_everybody_and_the_outside(lab: LabClient, web: list[dict[str, Any]]) -> None:
    to = [{"addr": a, "port": 8080, "proto": "tcp"} for a in addresses(web)]
    to += [{"addr": a, "port": 5353, "proto": "udp"} for a in addresses(web)]
    to += [{"addr": a, "port": 9999, "proto": "sctp"} for a in addresses(web)]
    to += [{"addr": a, "proto": "icmp"} for a in [*addresses(web), "198.51.100.10", "2001:db8:51::10"]]
    sources = [{"pod": n} for n in names(web)] + [{"node": n} for n in ("n1", "n2", "n3")]
    results = lab.call("run-in", probes=[{"from": s, "to": to} for s in sources], timeout=60)
    assert [r["from"] for r in results] == sources
    failed = [(r["from"], t) for r in results for t in r["to"] if not t["ok"]]
    assert failed == []
    by_address = {ip["ip"]: f"default/{p['metadata']['name']}" for p in web for ip in p["status"]["podIPs"]}
    for result in results[: len(web)]:
        for outcome in result["to"]:
            if outcome["proto"] == "tcp":
                identity, client = outcome["answer"].split(" from ")
                assert identity == by_address[outcome["addr"]]
                # Pods see each other's own addresses: nothing is masqueraded inside.
                assert result["from"]["pod"] == by_address[client.rsplit(":", 1)[0].strip("[]")]


def test_outside_knows_no_pods_and_sees_only_nodes(lab: LabClient, web: list[dict[str, Any]]) -> None:
    to = [{"addr": a, "port": 8080, "proto": "tcp"} for a in addresses(web)[:2]]
    (result,) = lab.call("run-in", probes=[{"from": {"outside": True}, "to": to}], timeout=1)
    assert not any(t["ok"] for t in result["to"])
    node = get_node_address(web[0])
    listener = subprocess.Popen(
        [*TOWPATH, "lab", "pcap", "--name", lab.name, "outside", "icmp", "and", "host", node, "--count", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert listener.stderr is not None
    assert "capturing" in listener.stderr.readline()
    question = {"from": {"pod": names(web)[0]}, "to": [{"addr": "198.51.100.10", "proto": "icmp"}]}
    lab.call("run-in", probes=[question])
    out, _ = listener.communicate(timeout=240)
    assert f"IP {node} > 198.51.100.10: icmp echo request" in out


def get_node_address(of: dict[str, Any]) -> str:
    return str(of["status"]["hostIP"])


def test_services_in_both_families(lab: LabClient, kubectl: Kubectl, web: list[dict[str, Any]]) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "type": "NodePort",
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http"}],
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(service))
    made = get(kubectl, "service", "web")["spec"]
    to = [{"addr": a, "port": 80, "proto": "tcp"} for a in made["clusterIPs"]]
    node_port = made["ports"][0]["nodePort"]
    to += [{"addr": a, "port": node_port, "proto": "tcp"} for a in ("172.30.0.12", "fd00:172:30::12")]
    probes = [{"from": {"pod": names(web)[0]}, "to": to}, {"from": {"outside": True}, "to": to[2:]}]

    def all_ok() -> bool:
        return all(t["ok"] for r in lab.call("run-in", probes=probes) for t in r["to"])

    assert len(made["clusterIPs"]) == 2
    eventually(all_ok)


def test_the_wire_carries_vxlan_to_8472_with_vni_1(
    lab: LabClient, web: list[dict[str, Any]], tmp_path: Path
) -> None:
    here = next(p for p in web if p["spec"]["nodeName"] == "n1")
    there = next(p for p in web if p["spec"]["nodeName"] == "n2")
    file = tmp_path / "x.pcap"
    command = [*TOWPATH, "lab", "pcap", "--name", lab.name, "n1", "--count", "2"]
    words = ["udp", "port", "8472", "and", "vni", "1", "and", "host", there["status"]["podIP"]]
    text = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    raw = subprocess.Popen([*command, "-w", str(file), *words], stderr=subprocess.PIPE, text=True)
    for process in (text, raw):
        assert process.stderr is not None
        assert "capturing" in process.stderr.readline()
    to = [{"addr": there["status"]["podIP"], "port": 5353, "proto": "udp"}]
    lab.call("run-in", probes=[{"from": {"pod": names([here])[0]}, "to": to}])
    out, _ = text.communicate(timeout=240)
    raw.communicate(timeout=240)
    pods = f"{here['status']['podIP']}"
    assert f"172.30.0.11.{out.split('172.30.0.11.')[1].split()[0]} > 172.30.0.12.8472" in out
    assert f"VXLAN vni 1 | IP {pods}" in out
    assert file.read_bytes()[:4] == b"\xd4\xc3\xb2\xa1"
    assert file.stat().st_size > 24 + 2 * (16 + 50)


def test_exec_logs_and_exit_codes(lab: LabClient, kubectl: Kubectl, web: list[dict[str, Any]]) -> None:
    name = web[0]["metadata"]["name"]
    assert towpath("exec", "--name", lab.name, name, "--", "hostname").stdout.strip() == name
    assert towpath("exec", "--name", lab.name, name, "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert "172.30.0.11" in towpath("exec", "--name", lab.name, "n1", "--", "ip", "addr").stdout
    assert "198.51.100.10" in towpath("exec", "--name", lab.name, "outside", "--", "ip", "addr").stdout
    piped = subprocess.run(
        [*TOWPATH, "lab", "exec", "--name", lab.name, name, "--", "cat"],
        input="x" * 100_000,
        capture_output=True,
        text=True,
        check=True,
    )
    assert piped.stdout == "x" * 100_000
    unknown = towpath("exec", "--name", lab.name, "nobody", "--", "true", check=False)
    assert unknown.returncode == 7
    assert "no node or pod 'nobody'" in unknown.stderr


def test_kubectl_exec_by_websocket(lab: LabClient, kubectl: Kubectl, web: list[dict[str, Any]]) -> None:
    version = json.loads(kubectl("version", "-o", "json"))["clientVersion"]
    if int(version["minor"].rstrip("+")) < 31:
        pytest.skip("kubectl speaks WebSocket from 1.31 on; `towpath lab exec` serves older ones")
    name = web[0]["metadata"]["name"]
    assert kubectl("exec", name, "--", "hostname").strip() == name
    assert kubectl("exec", "-i", name, "--", "cat", stdin="through and back") == "through and back"
    with pytest.raises(AssertionError, match="exit code 5"):
        kubectl("exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    terminal = subprocess.run(
        ["script", "-qec", f"kubectl exec -it {name} -- sh -c 'test -t 0 && echo a terminal'", "/dev/null"],
        env={**os.environ, "KUBECONFIG": lab.kubeconfig},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert "a terminal" in terminal.stdout


def test_ps_and_inspect(lab: LabClient) -> None:
    assert "kube-system/towpath-" in towpath("ps", "--name", lab.name).stdout
    inspected = json.loads(towpath("inspect", "--name", lab.name, "-o", "json").stdout)
    assert inspected["podNetworks"] == ["10.42.0.0/16", "fd00:10:42::/56"]
    assert [n["addresses"][0] for n in inspected["nodes"]] == ["172.30.0.11", "172.30.0.12", "172.30.0.13"]
    assert towpath("kubeconfig", "--name", lab.name).stdout.strip() == lab.kubeconfig
    assert towpath("kubectl", "--name", lab.name, "get", "nodes", "-o", "name").stdout.split() == [
        "node/n1",
        "node/n2",
        "node/n3",
    ]


def test_a_deleted_pod_leaves_nothing_on_its_node(lab: LabClient, kubectl: Kubectl) -> None:
    def state() -> tuple[str, ...]:
        shell = "ip -o link | grep -c cali; ls /run/netns | wc -l; ls /var/lib/cni/results | wc -l; ip route"
        return tuple(towpath("exec", "--name", lab.name, "n1", "--", "sh", "-c", shell).stdout.splitlines())

    before = state()
    kubectl("apply", "-f", "-", stdin=pod("brief", "n1", ports=[{"containerPort": 80, "hostPort": 8088}]))
    kubectl("wait", "--for=condition=Ready", "pod/brief", "--timeout=240s")
    assert state() != before
    kubectl("delete", "pod", "brief", "--timeout=240s")
    eventually(lambda: state() == before)


def test_commands_environment_volumes_and_logs(lab: LabClient, kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "words", "--from-literal=greeting=hello")
    shell = "echo $GREETING $POD_IP $(cat /etc/words/greeting) $(hostname); echo bad >&2; sleep 1000"
    env = [
        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "greeting"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=pod(
            "talker",
            command=["sh", "-c", shell],
            env=env,
            volumeMounts=[{"name": "words", "mountPath": "/etc/words"}],
            volumes=[{"name": "words", "configMap": {"name": "words"}}],
            terminationGracePeriodSeconds=0,
        ),
    )
    kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=240s")
    address = get(kubectl, "pod", "talker")["status"]["podIP"]
    eventually(lambda: kubectl("logs", "talker") == f"hello {address} hello talker\nbad\n")
    assert towpath("logs", "--name", lab.name, "talker", "--tail", "1").stdout == "bad\n"
    kubectl("delete", "pod/talker", "configmap/words", "--timeout=240s")


def test_restarts_back_off_and_jobs_end(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=pod("crash", command=["false"]))
    kubectl("apply", "-f", "-", stdin=pod("job", command=["true"], restartPolicy="Never"))
    kubectl("apply", "-f", "-", stdin=pod("fails", command=["sh", "-c", "exit 4"], restartPolicy="Never"))
    eventually(lambda: get(kubectl, "pod", "job")["status"]["phase"] == "Succeeded")
    eventually(lambda: get(kubectl, "pod", "fails")["status"]["phase"] == "Failed")
    ended = get(kubectl, "pod", "fails")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (4, "Error")

    def looping() -> bool:
        for container in get(kubectl, "pod", "crash")["status"].get("containerStatuses") or []:
            waiting = container["state"].get("waiting", {}).get("reason")
            return bool(waiting == "CrashLoopBackOff" and container["restartCount"] >= 2)
        return False

    eventually(looping)
    kubectl("delete", "pod", "crash", "job", "fails", "--timeout=240s")


def test_init_containers_and_probes(kubectl: Kubectl) -> None:
    http = {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1}
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=pod(
            "probed",
            ports=[{"containerPort": 8080, "name": "web"}],
            readinessProbe=http,
            livenessProbe={"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1},
            initContainers=[{"name": "first", "image": "x", "command": ["sh", "-c", "sleep 0.3"]}],
            terminationGracePeriodSeconds=1,
        ),
    )
    kubectl("wait", "--for=condition=Ready", "pod/probed", "--timeout=240s")
    status = get(kubectl, "pod", "probed")["status"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    kubectl("delete", "pod", "probed", "--timeout=240s")


def test_graceful_end_runs_the_handler_and_stubborn_ones_are_killed(kubectl: Kubectl) -> None:
    shell = "trap 'exit 0' TERM; echo set; while :; do sleep 0.05; done"
    kubectl("apply", "-f", "-", stdin=pod("polite", command=["sh", "-c", shell]))
    stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]
    kubectl("apply", "-f", "-", stdin=pod("stubborn", command=stubborn, terminationGracePeriodSeconds=1))
    kubectl("wait", "--for=condition=Ready", "pod/polite", "pod/stubborn", "--timeout=240s")
    eventually(lambda: kubectl("logs", "polite") == "set\n")
    begun = time.monotonic()
    kubectl("delete", "pod", "polite", "--timeout=240s")
    assert time.monotonic() - begun < 25  # at once, and not after the 30 s of grace
    kubectl("delete", "pod", "stubborn", "--timeout=240s")


def test_a_network_that_refuses_shows_in_events_and_is_retried(lab: LabClient, kubectl: Kubectl) -> None:
    def on_node(*command: str) -> None:
        towpath("exec", "--name", lab.name, "n3", "--", *command)

    on_node("mv", "/opt/cni/bin/towpath-cni", "/opt/cni/bin/away")
    try:
        kubectl("apply", "-f", "-", stdin=pod("unlucky", "n3"))

        def told() -> bool:
            events = get(kubectl, "events", "--field-selector", "involvedObject.name=unlucky")["items"]
            return any(
                e["reason"] == "FailedCreatePodSandBox" and "failed to find plugin" in e["message"]
                for e in events
            )

        eventually(told)
        (container,) = eventually(lambda: get(kubectl, "pod", "unlucky")["status"].get("containerStatuses"))
        assert container["state"]["waiting"]["reason"] == "ContainerCreating"
    finally:
        on_node("mv", "/opt/cni/bin/away", "/opt/cni/bin/towpath-cni")
    kubectl("wait", "--for=condition=Ready", "pod/unlucky", "--timeout=240s")
    kubectl("delete", "pod", "unlucky", "--timeout=240s")
