"""The pod's side of an audit, and our own manifests under it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from own_manifests import objects

from towpath.image.audit.pods import check_manifest
from towpath.install.render import render
from towpath.install.values import Values

DIGEST = "sha256:" + "a" * 64
CONTAINER: dict[str, Any] = {
    "name": "c",
    "image": f"example.org/x@{DIGEST}",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
}
POD: dict[str, Any] = {"automountServiceAccountToken": False, "containers": [CONTAINER]}


def judged(spec: dict[str, Any], kind: str = "Pod") -> set[tuple[str, str]]:
    whole: dict[str, Any] = {"spec": spec}
    if kind == "CronJob":
        whole = {"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}
    elif kind != "Pod":
        whole = {"spec": {"template": {"spec": spec}}}
    found = check_manifest([{"kind": kind, "metadata": {"name": "p"}, **whole}], DIGEST)
    return {(f.code, f.path.removeprefix(f"{kind}/p ").removeprefix("c ")) for f in found}


def security(**changed: Any) -> dict[str, Any]:
    context = {k: v for k, v in {**CONTAINER["securityContext"], **changed}.items() if v is not None}
    return {**POD, "containers": [{**CONTAINER, "securityContext": context}]}


def container(**changed: Any) -> dict[str, Any]:
    return {**POD, "containers": [{**CONTAINER, **changed}]}


PODS: dict[str, tuple[dict[str, Any], set[tuple[str, str]]]] = {
    "good": (POD, set()),
    "privileged": (security(privileged=True), {("TP8201", "privileged")}),
    "capability": (
        security(capabilities={"drop": ["ALL"], "add": ["CAP_NET_ADMIN"]}),
        {("TP8202", "capabilities.add")},
    ),
    "the one that is allowed": (security(capabilities={"drop": ["all"], "add": ["NET_BIND_SERVICE"]}), set()),
    "default capabilities": (security(capabilities=None), {("TP8203", "capabilities.drop")}),
    "escalation": (security(allowPrivilegeEscalation=None), {("TP8204", "allowPrivilegeEscalation")}),
    "root": (security(runAsUser=0), {("TP8205", "runAsUser")}),
    "perhaps root": (security(runAsNonRoot=None), {("TP8205", "runAsUser")}),
    "a number": (security(runAsNonRoot=None, runAsUser=1000), set()),
    "the pod's user": ({**security(runAsNonRoot=None), "securityContext": {"runAsNonRoot": True}}, set()),
    "writable root": (security(readOnlyRootFilesystem=False), {("TP8206", "readOnlyRootFilesystem")}),
    "no seccomp": (security(seccompProfile=None), {("TP8207", "seccompProfile")}),
    "unconfined": (security(seccompProfile={"type": "Unconfined"}), {("TP8207", "seccompProfile")}),
    "no AppArmor": (
        security(appArmorProfile={"type": "Unconfined"}),
        {("TP8214", "appArmorProfile")},
    ),
    "all of /proc": (security(procMount="Unmasked"), {("TP8214", "procMount")}),
    "SELinux": (security(seLinuxOptions={"type": "spc_t"}), {("TP8214", "seLinuxOptions")}),
    "a container's type": (security(seLinuxOptions={"type": "container_t"}), set()),
    "host path": (
        {**POD, "volumes": [{"name": "v", "hostPath": {"path": "/etc"}}]},
        {("TP8208", "volume v")},
    ),
    "host network": ({**POD, "hostNetwork": True}, {("TP8209", "hostNetwork")}),
    "host PID": ({**POD, "hostPID": True}, {("TP8209", "hostPID")}),
    "host port": (container(ports=[{"hostPort": 80}]), {("TP8209", "hostPort 80")}),
    "no limits": (container(resources={}), {("TP8210", "resources.limits")}),
    "token": ({"containers": [CONTAINER]}, {("TP8211", "automountServiceAccountToken")}),
    "tag": (container(image="example.org/x:v1"), {("TP8212", "image")}),
    "other digest": (container(image="x@sha256:" + "b" * 64), {("TP8213", "image")}),
}


@pytest.mark.parametrize("name", PODS)
def test_pods(name: str) -> None:
    spec, wanted = PODS[name]
    assert judged(spec) == wanted
    if name == "capability":
        for kind in ("DaemonSet", "Deployment", "Job", "CronJob"):
            assert judged(spec, kind) == wanted


def test_init_containers_count() -> None:
    spec = {**POD, "initContainers": [{**CONTAINER, "securityContext": {"privileged": True}}]}
    assert ("TP8201", "privileged") in judged(spec)


def test_lists_and_what_is_no_pod() -> None:
    pod = {"kind": "Pod", "metadata": {"name": "p"}, "spec": security(privileged=True)}
    assert [f.code for f in check_manifest([{"kind": "List", "items": [pod]}], DIGEST)] == ["TP8201"]
    assert not list(check_manifest([{"kind": "ConfigMap"}, "text", None, {"kind": "Pod"}]))


def known(path: str) -> str:
    """As the page has it: a handback is a takeover backwards, node ports of targets are all alike."""
    kind, _, rest = path.partition(" ")
    if kind.startswith("DaemonSet/towpath"):
        return path.removeprefix("DaemonSet/towpath ").removeprefix("DaemonSet/")
    rest = rest.replace("handback", "takeover")
    rest = "target hostPort" if rest.startswith("target hostPort") else rest
    return f"{OWNERS[kind.rpartition('/')[2].split('-a')[0].split('-x')[0]]} {rest}"


# How the page calls those whose names are made for a node or a run.
OWNERS = {
    "towpath-takeover": "takeover",
    "towpath-handback": "takeover",
    "towpath-watch": "watch",
    "towpath-node-reader": "reader",
    "towpath-pull": "puller",
    "pod": "prober",
    "node": "prober",
    "target": "prober",
    "host-target": "prober",
}


# What ours ask for beyond the restricted level, each line justified in docs/security.md.
def test_our_own_pods_ask_for_no_more_than_is_justified() -> None:
    found = {(f.code, known(f.path)) for f in check_manifest(objects())}
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    listed = {
        tuple(part.strip(" `") for part in line.split("|")[1:3])
        for line in page.splitlines()
        if line.startswith("| `TP82")
    }
    assert sorted(found - listed) == [], "justify it"
    assert sorted(listed - found) == [], "what is justified and no longer found is to be taken out"


def test_the_shipped_manifest_is_judged_alike() -> None:
    shipped = Path(__file__).parents[2] / "manifests/towpath.yaml"
    objects = list(yaml.safe_load_all(shipped.read_text()))
    assert set(check_manifest(objects)) == set(check_manifest(list(render(Values()))))
