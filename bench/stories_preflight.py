"""Stories that preflight catches, so that nothing is begun: the lab's cluster is made as the story's was."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from bench.stories_stage import FROM, NODES, SYSTEM, TO, Raw, Stage
from bench.upgrade import say
from towpath.catalogue import load
from towpath.lab import helm

SERVER = "node-role.kubernetes.io/control-plane"
_RBAC = "rbac.authorization.k8s.io"
_CANAL = "rke2-canal"
_MAC = r"metadata.annotations.flannel\.alpha\.coreos\.com/backend-data"
Put = Callable[[Stage], AbstractContextManager[None]]


class Story(NamedTuple):
    """``says``: the finding of check ``check``; ``put``: the story, as long as it is entered.

    ``begun``: the nodes' release; ``read``: nodes are looked at themselves; ``of``: what it is a finding of.
    """

    issue: str
    says: str
    check: int
    put: Put
    begun: str = FROM
    to: str = TO
    read: bool = False
    of: str = ""

    @property
    def stage(self) -> str:
        """As the page calls it."""
        return "preflight"


def _chart(policy: str = "abort") -> Raw:
    made = helm.chart(load.builtin(), FROM)
    return {**made, "spec": {**made["spec"], "failurePolicy": policy}}


def _definition(name: str, kind: str = "", scope: str = "Namespaced", version: str = "v1") -> Raw:
    plural, _, group = name.partition(".")
    kind = kind or f"Kind{plural.capitalize()}"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    served = [{"name": version, "served": True, "storage": True, "schema": schema}]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in"}},
        "spec": {"group": group, "scope": scope, "names": names, "versions": served},
    }


def _crds(release: str) -> frozenset[str]:
    known = load.builtin()
    chart = known.chart(_CANAL, known.release(release).charts[_CANAL])
    return frozenset(chart.crds or ()) if chart is not None else frozenset()


def _crd(name: str) -> Raw:
    if name.endswith("policy.networking.k8s.io"):
        kind = "AdminNetworkPolicy" if name.startswith("admin") else "BaselineAdminNetworkPolicy"
        return _definition(name, kind, "Cluster", "v1alpha1")
    return _definition(name)


def _role(*without: str) -> Raw:
    """What Canal may, as of its chart."""
    rules = [
        ("", "serviceaccounts/token", ["create"]),
        ("crd.projectcalico.org", "*", ["get", "list", "watch"]),
        ("policy.networking.k8s.io", "*", ["get", "list", "watch"]),
    ]
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": _CANAL},
        "rules": [
            {"apiGroups": [group], "resources": [what], "verbs": verbs}
            for group, what, verbs in rules
            if what not in without
        ],
    }


def _binding(account: str) -> Raw:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": _CANAL},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": _CANAL},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}],
    }


def there(*objects: Raw, otherwise: Raw | None = None) -> Put:
    """These objects; afterwards none of them, or what was there before."""

    @contextmanager
    def put(stage: Stage) -> Iterator[None]:
        stage.apply(*objects)
        yield
        if otherwise is not None:
            stage.apply(otherwise)
        else:
            for one in reversed(objects):
                stage.kubectl("delete", "-f", "-", "--wait=true", stdin=json.dumps(one))

    return put


def on_second(script: str, undo: str) -> Put:
    """Done on the second node; ``undo`` on all of them, before Canal's pods come anew."""

    @contextmanager
    def put(stage: Stage) -> Iterator[None]:
        stage.on(NODES[1], script)
        yield
        stage.whole(undo)

    return put


@contextmanager
def as_it_is(_: Stage) -> Iterator[None]:
    """The releases alone tell the story."""
    yield


@contextmanager
def without_new_definitions(stage: Stage) -> Iterator[None]:
    """Definitions as the old chart has them, and the new one's images to come."""
    lacking = sorted(_crds("v1.33.12+rke2r1") - _crds("v1.33.11+rke2r1"))
    stage.kubectl("delete", "crd", *lacking, "--wait=true")
    yield
    stage.apply(*map(_crd, lacking))


@contextmanager
def cloned(stage: Stage) -> Iterator[None]:
    """The second node says of its tunnel what the first one says."""
    key = "flannel.alpha.coreos.com/backend-data"
    macs = [stage.get("node", node)["metadata"]["annotations"][key] for node in NODES]
    stage.kubectl("annotate", "node", NODES[1], "--overwrite", f"{key}={macs[0]}")
    yield
    stage.kubectl("annotate", "node", NODES[1], "--overwrite", f"{key}={macs[1]}")


@contextmanager
def two_servers(stage: Stage) -> Iterator[None]:
    """Of two releases: the first one is upgraded, the second one not."""
    for node in NODES:
        stage.kubectl("label", "node", node, f"{SERVER}=true")
    release(stage, TO, NODES[0])
    yield
    for node in NODES:
        stage.kubectl("label", "node", node, f"{SERVER}-")


@contextmanager
def helm_on_the_old(stage: Stage) -> Iterator[None]:
    """The same, and helm has run on the second one."""
    meta = {"name": "helm-install-rke2-canal", "namespace": "kube-system"}
    meta |= {"labels": {"helmcharts.helm.cattle.io/chart": _CANAL}}  # type: ignore[dict-item]
    container = {"name": "helm", "image": "klipper-helm", "command": ["true"]}
    spec = {"nodeName": NODES[1], "hostNetwork": True, "restartPolicy": "Never", "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    with two_servers(stage), there(pod)(stage):
        yield


@contextmanager
def leaked(stage: Stage) -> Iterator[None]:
    """Ten ADDs that nobody followed with a DEL, by host-local itself."""
    subnet = stage.get("node", NODES[1])["spec"]["podCIDRs"][0]
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    conf = json.dumps({"cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "host-local", "ipam": ipam})
    call = "CNI_NETNS=/gone CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin CNI_CONTAINERID=gone-$i"
    for verb in ("ADD", "DEL"):
        script = f"for i in 0 1 2 3 4 5 6 7 8 9; do echo '{conf}' | CNI_COMMAND={verb} {call}"
        stage.on(NODES[1], f"{script} /opt/cni/bin/host-local; done")
        if verb == "ADD":
            yield


_SECRET: Raw = {
    "apiVersion": "v1",
    "kind": "Secret",
    "type": "helm.sh/release.v1",
    "metadata": {
        "name": f"sh.helm.release.v1.{_CANAL}.v3",
        "namespace": "kube-system",
        "labels": {"owner": "helm", "name": _CANAL, "version": "3", "status": "uninstalling"},
    },
}
_PIN: Raw = {
    "apiVersion": "helm.cattle.io/v1",
    "kind": "HelmChartConfig",
    "metadata": {"name": _CANAL, "namespace": "kube-system"},
    "spec": {
        "valuesContent": "flannel:\n  image:\n    repository: rancher/hardened-flannel\n    tag: v0.26.3\n"
    },
}
_ADMIN: tuple[Raw, ...] = tuple(
    {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": f"story-{priority}"},
        "spec": {"priority": priority, "subject": {"namespaces": {}}, "ingress": []},
    }
    for priority in (1, 2)
)
_BEFORE_DROP = ("v1.33.11+rke2r1", "v1.33.12+rke2r1")
STORIES = (
    Story("rancher#50921", "TP7308", 7, there(_chart("reinstall"), otherwise=_chart())),
    Story("rke2#3805", "TP7311", 16, two_servers),
    Story("rke2#3787", "TP7312", 17, helm_on_the_old),
    Story("rke2#3491", "TP7309", 7, there(_SECRET)),
    Story("rke2#6633", "TP7017", 26, as_it_is, "v1.28.8+rke2r1", "v1.28.12+rke2r1", of="rke2#6633"),
    Story("rke2-charts#1022", "TP7341", 4, without_new_definitions, *_BEFORE_DROP),
    Story("rke#3221", "TP7340", 4, there(_role("serviceaccounts/token"), otherwise=_role())),
    Story("rke2#3723", "TP7017", 26, as_it_is, "v1.24.8+rke2r1", "v1.24.9+rke2r1", of="rke2#3723"),
    Story("rke2#4053", "TP7013", 2, as_it_is, "v1.33.11+rke2r1", "v1.34.5+rke2r1"),
    Story("rke2#3361", "TP7329", 14, leaked, read=True),
    Story("dropped definitions", "TP7015", 3, there(*_ADMIN), *_BEFORE_DROP),
    Story("stale pins", "TP7307", 6, there(_PIN)),
    Story("a cloned node", "TP7318", 21, cloned, read=True),
    Story(
        "MTU and VNI",
        "TP7335",
        28,
        on_second(
            "set -- $(ip -d link show flannel.1"
            " | sed -n 's/.* local \\([^ ]*\\) dev \\([^ ]*\\) .*/\\1 \\2/p');"
            " ip link del flannel.1;"
            " ip link add flannel.1 type vxlan id 4096 local $1 dev $2 dstport 8472 nolearning;"
            " ip link set flannel.1 up",
            "ip link del flannel.1",
        ),
        read=True,
    ),
    Story(
        "calico#5760 before",
        "TP7323",
        11,
        on_second(
            "for c in FLANNEL-POSTRTG cali-POSTROUTING; do iptables-legacy -t nat -N $c;"
            " iptables-legacy -t nat -A $c -j RETURN; done",
            "iptables-legacy -t nat -F; iptables-legacy -t nat -X",
        ),
        read=True,
    ),
)


def release(stage: Stage, name: str, *nodes: str) -> None:
    """What the nodes say that they run; a kubelet of the lab writes its own only when something changes."""
    said = json.dumps({"status": {"nodeInfo": {"kubeletVersion": name}}})
    for node in nodes or NODES:
        stage.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", said)


def dressed(stage: Stage) -> None:
    """What RKE2's cluster has and the lab's has not: charts, definitions, rights."""
    if "helmcharts.helm.cattle.io" in stage.kubectl("get", "crd", "-o", "name"):
        return
    names = sorted(frozenset().union(*map(_crds, (FROM, TO, *_BEFORE_DROP))))
    made = [helm.definition(), _definition("helmchartconfigs.helm.cattle.io", "HelmChartConfig")]
    made += map(_crd, names)
    stage.apply(*made)
    wanted = [f"crd/{one['metadata']['name']}" for one in made]
    stage.kubectl("wait", "--for=condition=Established", "--timeout=60s", *wanted)
    pods = stage.get(*SYSTEM, "pod", "-l", "k8s-app=canal")["items"]
    account = pods[0]["spec"].get("serviceAccountName") or "default"
    stage.apply(_chart(), _role(), _binding(account))


def _found(stage: Stage, story: Story) -> tuple[set[str], float]:
    """Every finding with its check, and how long it took."""
    words = ["preflight", "--to", story.to, "-o", "json", "--churn", "0.2"]
    words += ["--read-nodes"] if story.read else ["--no-read-nodes"]
    begun = time.monotonic()
    told: dict[str, Any] = json.loads(stage.towpath(*words, ok=(0, 3, 6)))
    took = time.monotonic() - begun
    return {
        f"{check['number']} {finding['code']} {finding['object']}: {finding['message']}"
        for check in told["checks"]
        for finding in check["findings"]
    }, took


def staged(stage: Stage, story: Story) -> dict[str, Any]:
    """Seconds that preflight took; whether it finds the story, and not without it."""
    say(f"{story.issue}: {story.says} of check {story.check}…")
    dressed(stage)
    other = story.put is as_it_is  # then it is another way between releases that is without it
    release(stage, FROM if other else story.begun)
    usual, _ = _found(stage, story._replace(to=TO) if other else story)
    release(stage, story.begun)
    with story.put(stage):
        found, took = _found(stage, story)
    new = found - usual
    caught = any(line.startswith(f"{story.check} {story.says} ") and story.of in line for line in new)
    if not caught:
        say(f"not caught by {story.check} {story.says}: {sorted(new)}")
    return {"after_s": round(took, 1), "caught": caught}
