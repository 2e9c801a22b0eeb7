"""Manifests and questions that several lab tests share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab_state import keep

from patience import PATIENT
from towpath.lab.client import LabClient

Kubectl = Callable[..., str]
TOWPATH = (sys.executable, "-m", "towpath")


def deployment(name: str, replicas: int, **container: Any) -> str:
    """A Deployment of echo pods as JSON, ``container`` fields on top."""
    ports = [
        {"containerPort": 8080, "name": "http"},
        {"containerPort": 5353, "protocol": "UDP"},
        {"containerPort": 9999, "protocol": "SCTP"},
    ]
    labels = {"app": name}
    spec = {"containers": [{"name": "echo", "image": "towpath/echo:1", "ports": ports, **container}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return json.dumps(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}
    )


def pod(name: str, node: str = "", annotations: dict[str, str] | None = None, **fields: Any) -> str:
    """A pod as JSON; ``fields`` of its container, or of its spec when they are spec's."""
    own = {"restartPolicy", "initContainers", "hostNetwork", "terminationGracePeriodSeconds", "volumes"}
    spec: dict[str, Any] = {key: fields.pop(key) for key in list(fields) if key in own}
    spec["containers"] = [{"name": "main", "image": "towpath/echo:1", **fields}]
    if node:
        spec["nodeName"] = node
    meta: dict[str, Any] = {"name": name, "annotations": annotations or {}}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def towpath(*arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``towpath lab …``."""
    command = [*TOWPATH, "lab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def get(kubectl: Kubectl, *what: str) -> Any:
    """An object or list."""
    return json.loads(kubectl("get", *what, "-o", "json"))


def eventually(question: Callable[[], Any], seconds: float = PATIENT, pause: float = 0.1) -> Any:
    """The first true answer; AssertionError with the last one after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {seconds} s")
        time.sleep(pause)


def settle(kubectl: Kubectl) -> None:
    """Wait until nothing in a lab is on its way out, and its agents are ready."""
    under_way: list[str] = []

    def quiet() -> bool:
        under_way[:] = unsettled(kubectl)
        return not under_way

    try:
        eventually(quiet)
    except AssertionError as error:
        raise AssertionError(f"still on their way: {under_way}") from error


def unsettled(kubectl: Kubectl) -> list[str]:
    """What ends, or will because its owner is gone; Towpath, while it has no ready agent on every node."""
    kinds = "pods,replicasets,deployments,daemonsets,statefulsets,namespaces,customresourcedefinitions"
    items = get(kubectl, kinds, "-A")["items"]
    there = {one["metadata"]["uid"] for one in items}
    found = []
    for one in items:
        owners = {owner["uid"] for owner in one["metadata"].get("ownerReferences") or ()}
        if "deletionTimestamp" in one["metadata"] or owners - there:
            found.append(f"{one['kind']} {one['metadata']['name']}")
    status = get(kubectl, "daemonset", "-n", "kube-system", "towpath")["status"]
    wanted = status["desiredNumberScheduled"]
    if not status.get("numberReady") == status.get("updatedNumberScheduled") == wanted:
        found.append(f"agents: {status}")
    return found


def ended(client: LabClient) -> None:
    """The lab goes, and with it what tests have put into its folder: kubeconfigs by which a lab is known."""
    for file in client.folder.glob("*.kubeconfig"):
        file.unlink()
    client.call("down")


@contextmanager
def lab_with_pods(name: str, *options: str) -> Iterator[tuple[LabClient, Kubectl, list[dict[str, Any]]]]:
    """A lab, kubectl for it, and one echo pod a node."""
    towpath("up", "--name", name, *options)
    client = LabClient(name)

    def kubectl(*arguments: str, stdin: str = "") -> str:
        return subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            env={**os.environ, "KUBECONFIG": client.kubeconfig},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout

    try:
        nodes = len(client.call("inspect")["nodes"])
        kubectl("apply", "-f", "-", stdin=deployment("echo", nodes))
        kubectl("rollout", "status", "deployment/echo", "--timeout=240s")
        yield client, kubectl, get(kubectl, "pods", "-l", "app=echo")["items"]
    except Exception as failed:
        keep(f"{type(failed).__name__} came", [name])  # the lab is gone when the test's report is made
        raise
    finally:
        ended(client)


def failures(client: LabClient, pods: list[dict[str, Any]]) -> list[object]:
    """Probes between all pods, and to the outside, that fail."""
    to = [{"addr": i["ip"], "port": 8080, "proto": "tcp"} for p in pods for i in p["status"]["podIPs"]]
    to += [{"addr": address, "proto": "icmp"} for address in client.call("inspect")["outside"]]
    probes = [{"from": {"pod": f"default/{p['metadata']['name']}"}, "to": to} for p in pods]
    return [(r["from"], t) for r in client.call("run-in", probes=probes) for t in r["to"] if not t["ok"]]
