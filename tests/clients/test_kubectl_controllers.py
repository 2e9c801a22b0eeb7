"""The controllers behind the real API server, driven by the real kubectl, over nodes that are hollow."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import KUBECTLS, Lab, running
from hollow_nodes import HollowCluster

from patience import PATIENT

pytestmark = [pytest.mark.clients, pytest.mark.skipif(not KUBECTLS, reason="no kubectl on this machine")]
BINARY = next(iter(reversed(KUBECTLS)), "")
WAIT = "--timeout=240s"


class Cluster:
    """kubectl in one namespace."""

    def __init__(self, lab: Lab, hollow: HollowCluster, namespace: str) -> None:
        self.lab, self.hollow, self.namespace = lab, hollow, namespace

    def k(self, *args: str, stdin: str = "", ok: bool = True) -> str:
        return self.lab.kubectl(BINARY, "-n", self.namespace, *args, stdin=stdin, ok=ok)

    def apply(self, *objects: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.k("apply", "-f", "-", stdin=json.dumps(items))

    def get(self, what: str, *args: str) -> Any:
        return json.loads(self.k("get", what, "-o", "json", *args))

    def names(self, what: str, *args: str) -> list[str]:
        return [i["metadata"]["name"] for i in self.get(what, *args)["items"]]

    def images(self) -> set[str]:
        return {p["spec"]["containers"][0]["image"] for p in self.live()}

    def live(self) -> list[dict[str, Any]]:
        return [p for p in self.get("pods")["items"] if not p["metadata"].get("deletionTimestamp")]

    def until(self, holds: Callable[[], bool], seconds: float = PATIENT) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.k("get", "all,events", "-o", "wide")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, HollowCluster]]:
    folder: Path = tmp_path_factory.mktemp("lab")
    with running(folder) as lab, HollowCluster(folder / "kubeconfig", 3).running() as hollow:
        yield lab, hollow


@pytest.fixture
def cluster(parts: tuple[Lab, HollowCluster], request: pytest.FixtureRequest) -> Iterator[Cluster]:
    lab, hollow = parts
    name = request.node.name.replace("_", "-").removeprefix("test-")[:40].strip("-")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    lab.kubectl(BINARY, "create", "-f", "-", stdin=json.dumps(space))
    yield Cluster(lab, hollow, name)
    lab.kubectl(BINARY, "delete", "namespace", name, "--wait=false", "--ignore-not-found")


def pod_template(image: str = "web:1", **spec: Any) -> dict[str, Any]:
    container = {"name": "web", "image": image, "ports": [{"containerPort": 80, "name": "http"}]}
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container], **spec}}


def workload(kind: str, image: str = "web:1", name: str = "web", **spec: Any) -> dict[str, Any]:
    template = spec.pop("template", pod_template(image))
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def test_deployment_rollout_undo_restart_scale(cluster: Cluster) -> None:
    k = cluster.k
    cluster.apply(workload("Deployment", replicas=3))
    assert "successfully rolled out" in k("rollout", "status", "deployment/web", WAIT)
    k("set", "image", "deployment/web", "web=web:2")
    k("rollout", "status", "deployment/web", WAIT)
    cluster.until(lambda: cluster.images() == {"web:2"})
    k("rollout", "restart", "deployment/web")
    k("rollout", "status", "deployment/web", WAIT)
    history = k("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["1", "2", "3"]
    k("rollout", "undo", "deployment/web", "--to-revision=1")
    k("rollout", "status", "deployment/web", WAIT)
    cluster.until(lambda: cluster.images() == {"web:1"})
    assert (
        cluster.get("deployment/web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "4"
    )
    cluster.until(lambda: len(cluster.names("pods")) == 3)  # those that end count where the next ones go
    k("scale", "deployment/web", "--replicas=6")
    k("wait", "deployment/web", "--for=condition=Available", WAIT)
    k("rollout", "status", "deployment/web", WAIT)
    assert len(cluster.live()) == 6
    spread = [p["spec"]["nodeName"] for p in cluster.live()]
    assert {spread.count(n) for n in set(spread)} == {2}
    k("scale", "deployment/web", "--replicas=1")
    cluster.until(lambda: len(cluster.get("pods")["items"]) == 1)


def test_deployment_that_cannot_get_ready_keeps_serving(cluster: Cluster) -> None:
    cluster.hollow.nodes.broken.add("bad:1")
    cluster.apply(workload("Deployment", replicas=4))
    cluster.k("rollout", "status", "deployment/web", WAIT)
    cluster.k("patch", "deployment/web", "-p", '{"spec":{"progressDeadlineSeconds":2}}')
    cluster.k("set", "image", "deployment/web", "web=bad:1")
    told = cluster.k("rollout", "status", "deployment/web", WAIT, ok=False)
    assert "exceeded its progress deadline" in told
    cluster.until(lambda: cluster.get("deployment/web")["status"].get("availableReplicas") == 3)
    cluster.k("patch", "deployment/web", "-p", '{"spec":{"progressDeadlineSeconds":600}}')
    cluster.k("rollout", "undo", "deployment/web")
    cluster.k("rollout", "status", "deployment/web", WAIT)


def test_paused_and_recreate(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", replicas=2, strategy={"type": "Recreate"}))
    cluster.k("rollout", "status", "deployment/web", WAIT)
    cluster.k("rollout", "pause", "deployment/web")
    cluster.k("set", "image", "deployment/web", "web=web:2")
    time.sleep(0.3)
    assert cluster.images() == {"web:1"}
    cluster.k("rollout", "resume", "deployment/web")
    cluster.k("rollout", "status", "deployment/web", WAIT)
    assert cluster.images() == {"web:2"}


def test_daemonset_rollout_undo_and_on_delete(cluster: Cluster) -> None:
    k = cluster.k
    cluster.apply(workload("DaemonSet"))
    assert "successfully rolled out" in k("rollout", "status", "daemonset/web", WAIT)
    assert sorted(p["spec"]["nodeName"] for p in cluster.live()) == ["node-1", "node-2", "node-3"]
    k("set", "image", "daemonset/web", "web=web:2")
    k("rollout", "status", "daemonset/web", WAIT)
    assert cluster.images() == {"web:2"}
    assert len(cluster.names("controllerrevisions")) == 2
    k("rollout", "undo", "daemonset/web")
    k("rollout", "status", "daemonset/web", WAIT)
    assert cluster.images() == {"web:1"}
    k("patch", "daemonset/web", "-p", '{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}')
    k("set", "image", "daemonset/web", "web=web:3")
    time.sleep(0.3)
    assert cluster.images() == {"web:1"}

    def told() -> bool:
        status = cluster.get("daemonset/web")["status"]
        all_there = status["desiredNumberScheduled"] == status["numberReady"] == 3
        return bool(all_there and status.get("updatedNumberScheduled", 0) == 0)

    cluster.until(told)
    assert cluster.images() == {"web:1"}
    victim = cluster.live()[0]["metadata"]["name"]
    k("delete", "pod", victim)
    cluster.until(lambda: cluster.images() == {"web:1", "web:3"} and len(cluster.live()) == 3)


def test_daemonset_surges(cluster: Cluster) -> None:
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    cluster.apply(workload("DaemonSet", updateStrategy=surge))
    cluster.k("rollout", "status", "daemonset/web", WAIT)
    cluster.k("set", "image", "daemonset/web", "web=web:2")
    cluster.k("rollout", "status", "daemonset/web", WAIT)
    cluster.until(lambda: cluster.images() == {"web:2"} and len(cluster.live()) == 3)


def test_deletion_cascades_as_asked(cluster: Cluster) -> None:
    k = cluster.k
    cluster.apply(workload("Deployment", replicas=2))
    k("rollout", "status", "deployment/web", WAIT)
    k("delete", "deployment/web", "--cascade=foreground")
    assert "No resources found" in k("get", "deployments,replicasets")
    cluster.until(lambda: not cluster.names("pods"))
    cluster.apply(workload("Deployment", replicas=2))
    k("rollout", "status", "deployment/web", WAIT)
    before = sorted(cluster.names("pods"))
    k("delete", "deployment/web", "--cascade=orphan")
    cluster.until(lambda: not cluster.names("deployments"))
    (left,) = cluster.get("replicasets")["items"]
    assert "ownerReferences" not in left["metadata"]
    k("delete", f"replicaset/{left['metadata']['name']}", "--cascade=orphan")
    cluster.until(lambda: not cluster.names("replicasets"))
    assert sorted(cluster.names("pods")) == before
    cluster.apply(workload("ReplicaSet", replicas=2))
    cluster.until(lambda: cluster.get("replicaset/web").get("status", {}).get("readyReplicas") == 2)
    assert sorted(cluster.names("pods")) == before
    k("delete", "replicaset/web")
    cluster.until(lambda: not cluster.names("pods"))


def test_a_namespace_takes_everything_with_it(cluster: Cluster) -> None:
    cluster.apply(
        workload("Deployment", replicas=2),
        workload("DaemonSet", name="daemon", template=pod_template(hostNetwork=True)),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kept", "finalizers": ["example.com/hold"]},
        },
    )
    cluster.k("rollout", "status", "deployment/web", WAIT)
    cluster.k("delete", "namespace", cluster.namespace, "--wait=false")
    cluster.until(lambda: not cluster.names("pods"))

    def remaining() -> str:
        conditions = cluster.get(f"namespace/{cluster.namespace}")["status"].get("conditions", [])
        return str(conditions)

    cluster.until(lambda: "configmaps. has 1 resource instances" in remaining())
    cluster.k("patch", "configmap/kept", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    cluster.k("wait", f"namespace/{cluster.namespace}", "--for=delete", WAIT)


def test_unschedulable_pods_say_why_and_wait_for_room(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", replicas=1, template=pod_template(nodeSelector={"disk": "ssd"})))
    cluster.until(lambda: "FailedScheduling" in cluster.k("get", "events"))
    why = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    cluster.until(lambda: why in cluster.k("describe", "pods"))

    def unscheduled() -> bool:
        (pod,) = cluster.live()
        found = {c["type"]: (c["status"], c.get("reason")) for c in pod["status"].get("conditions", [])}
        return found.get("PodScheduled") == ("False", "Unschedulable")

    cluster.until(unscheduled)
    cluster.k("label", "node", "node-2", "disk=ssd")
    cluster.k("rollout", "status", "deployment/web", WAIT)
    assert cluster.live()[0]["spec"]["nodeName"] == "node-2"
    cluster.k("label", "node", "node-2", "disk-")


def test_cordon_and_drain(cluster: Cluster) -> None:
    cluster.apply(workload("Deployment", replicas=3))
    cluster.k("rollout", "status", "deployment/web", WAIT)

    def moved() -> bool:
        """A scheduler that has not heard of it yet puts there what was just evicted: that goes as well."""
        drained = subprocess.run(
            [KUBECTLS[BINARY], "drain", "node-3", "--ignore-daemonsets", "--force", WAIT],
            env=cluster.lab.env(),
            capture_output=True,
            text=True,
        )
        assert drained.returncode == 0, drained.stderr
        cluster.k("rollout", "status", "deployment/web", WAIT)
        return {p["spec"].get("nodeName") for p in cluster.live()} <= {"node-1", "node-2"}

    cluster.until(moved)
    key = "node.kubernetes.io/unschedulable"
    cluster.until(lambda: key in [t["key"] for t in cluster.get("node/node-3")["spec"].get("taints", [])])
    cluster.k("uncordon", "node-3")
    cluster.until(lambda: "taints" not in cluster.get("node/node-3")["spec"])


def test_services_find_their_pods(cluster: Cluster) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 8080, "targetPort": "http"}],
        },
    }
    cluster.apply(workload("Deployment", replicas=2), service)
    cluster.k("rollout", "status", "deployment/web", WAIT)
    ips = {p["status"]["podIP"] for p in cluster.live()}

    def served() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for item in cluster.get("endpointslices")["items"]:
            members = {e["addresses"][0] for e in item["endpoints"] or [] if e["conditions"]["ready"]}
            assert [p["port"] for p in item["ports"] or []] in ([80], [])
            found.setdefault(item["addressType"], set()).update(members)
        return found

    cluster.until(lambda: served().get("IPv4") == ips and len(served().get("IPv6", ())) == 2)
    described = cluster.k("describe", "service", "web")
    assert any(f"{ip}:80" in described for ip in ips)
    cluster.k("scale", "deployment/web", "--replicas=0")
    cluster.until(lambda: served() == {"IPv4": set(), "IPv6": set()})
    cluster.k("delete", "service", "web")
    cluster.until(lambda: not cluster.names("endpointslices") and not cluster.names("endpoints"))


def test_nodes_and_namespaces_get_what_every_one_has(cluster: Cluster) -> None:
    def cut_up() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.get("nodes")["items"]
        return found if len(found) == 3 and all("podCIDR" in n["spec"] for n in found) else []

    cluster.until(lambda: bool(cut_up()))
    nodes = cut_up()
    assert {n["spec"]["podCIDR"] for n in nodes} == {f"10.42.{i}.0/24" for i in range(3)}
    assert all(n["spec"]["podCIDRs"][0] == n["spec"]["podCIDR"] for n in nodes)
    assert {n["spec"]["podCIDRs"][1] for n in nodes} == {
        f"fd00:10:42:{i or ''}{':' if i else ''}:/64" for i in range(3)
    }
    cluster.until(lambda: cluster.names("serviceaccounts") == ["default"])
    cluster.until(
        lambda: "BEGIN CERTIFICATE" in cluster.k("get", "configmap", "kube-root-ca.crt", "-o", "yaml")
    )
    cluster.k("delete", "serviceaccount", "default")
    cluster.until(lambda: cluster.names("serviceaccounts") == ["default"])


def test_custom_resources_own_and_are_owned(cluster: Cluster) -> None:
    plural = "boats"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": "boat", "kind": "Boat"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                    },
                }
            ],
        },
    }
    cluster.apply(definition)
    cluster.k("wait", f"crd/{plural}.example.com", "--for=condition=Established", WAIT)
    boat = {"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "one"}}
    cluster.apply(boat)
    uid = cluster.get(f"{plural}/one")["metadata"]["uid"]
    reference = {"apiVersion": "example.com/v1", "kind": "Boat", "name": "one", "uid": uid}
    for kind, name in (("ConfigMap", "cargo"), ("ConfigMap", "mail")):
        meta = {"name": name, "ownerReferences": [reference]}
        cluster.apply({"apiVersion": "v1", "kind": kind, "metadata": meta})
    time.sleep(0.5)
    assert "cargo" in cluster.names("configmaps")
    cluster.k("delete", plural, "one")
    cluster.until(lambda: cluster.names("configmaps") == ["kube-root-ca.crt"])
    cluster.k("delete", "crd", f"{plural}.example.com")


def test_statefulset_rolls_from_the_top_and_is_undone(cluster: Cluster) -> None:
    cluster.apply(workload("StatefulSet", name="db", replicas=3, serviceName="db"))
    cluster.k("rollout", "status", "statefulset/db", WAIT)
    assert sorted(cluster.names("pods")) == ["db-0", "db-1", "db-2"]
    cluster.k("set", "image", "statefulset/db", "web=web:2")
    cluster.k("rollout", "status", "statefulset/db", WAIT)
    assert cluster.images() == {"web:2"}
    cluster.k("rollout", "undo", "statefulset/db")
    cluster.k("rollout", "status", "statefulset/db", WAIT)
    assert cluster.images() == {"web:1"}
    cluster.k("scale", "statefulset/db", "--replicas=1")
    cluster.until(lambda: cluster.names("pods") == ["db-0"])
