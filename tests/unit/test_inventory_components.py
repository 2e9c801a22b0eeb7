"""What a pod network consists of, read from objects as the API server gives them."""

from typing import Any

import pytest

from towpath.catalogue import load
from towpath.inventory.components import Component, components, is_network, node_facts
from towpath.inventory.images import Image
from towpath.inventory.rollout import findings, unexpected
from towpath.lab import canal
from towpath.probe import objects
from towpath.probe.objects import Run

OLD, NEW = "v1.32.1+rke2r1", "v1.32.2+rke2r1"
KNOWN = load.builtin()


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("nginx", Image("nginx", "nginx", "", "")),
        ("rancher/hardened-calico:v3", Image("rancher/hardened-calico", "hardened-calico", "v3", "")),
        ("reg:5000/a/b", Image("reg:5000/a/b", "b", "", "")),
        ("reg:5000/a/b:1@sha256:ab", Image("reg:5000/a/b", "b", "1", "sha256:ab")),
        ("sha256:ab", Image("", "", "", "sha256:ab")),
        ("", Image("", "", "", "")),
    ],
)
def test_names_of_images(text: str, image: Image) -> None:
    assert Image.parse(text) == image


@pytest.mark.parametrize(
    ("text", "belongs"),
    [
        ("registry.corp:5000/mirror/hardened-flannel:v1", True),
        ("quay.io/calico/node:v3.29.2", True),
        ("docker.io/flannel/flannel:v0.26.4", True),
        ("kindest/node:v1.32", False),
        ("rancher/hardened-etcd:v3", False),
        ("sha256:ab", False),
    ],
)
def test_which_images_belong_to_a_pod_network(text: str, belongs: bool) -> None:
    assert is_network(Image.parse(text)) is belongs


def node(name: str, *cached: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": NEW, "kernelVersion": "6.1", "osImage": "SLES"},
            "images": [{"names": [*cached, "docker.io/rancher/hardened-etcd:v3"]}],
        },
    }


def daemonset(release: str, *, desired: int = 2, updated: int = 2, ready: int = 2) -> dict[str, Any]:
    made = canal.daemonset(KNOWN.release(release))
    made["metadata"] |= {"uid": "ds", "generation": 2}
    made["status"] = {
        "observedGeneration": 2,
        "desiredNumberScheduled": desired,
        "updatedNumberScheduled": updated,
        "numberReady": ready,
    }
    return made


def pod(on: str, release: str, **changed: Any) -> dict[str, Any]:
    spec = daemonset(release)["spec"]["template"]["spec"]

    def status(one: dict[str, Any]) -> dict[str, Any]:
        image_id = f"docker.io/{one['image'].split(':')[0]}@sha256:{release}"
        found: dict[str, Any] = {
            "name": one["name"],
            "image": f"docker.io/{one['image']}",
            "imageID": image_id,
            "ready": True,
        }
        found |= {"state": {"running": {}}} | changed.get(one["name"], {})
        return found

    return {
        "metadata": {
            "name": f"canal-{on}",
            "labels": {"pod-template-generation": changed.get("generation", "2")},
            "ownerReferences": [{"uid": "ds"}],
        },
        "spec": {"nodeName": on, **spec},
        "status": {
            "conditions": [{"type": "Ready", "status": changed.get("ready", "True")}],
            "containerStatuses": list(map(status, spec["containers"])),
            "initContainerStatuses": list(map(status, spec["initContainers"])),
        },
    }


def only(*pods: dict[str, Any], **counts: int) -> tuple[Component, ...]:
    return components([daemonset(NEW, **counts)], pods)


NODES = (node_facts(node("a")), node_facts(node("b")))


def test_all_well() -> None:
    parts = only(pod("b", NEW), pod("a", NEW))
    assert [p.node for p in parts[0].pods] == ["a", "b"]
    assert findings(parts, NODES) == []
    assert unexpected(parts, NODES, KNOWN.release(NEW).images, NEW) == []


def test_a_stale_node_is_named_and_an_image_that_merely_lies_there_is_no_excuse() -> None:
    lying = f"docker.io/{canal.image(KNOWN.release(NEW), 'hardened-calico')}"
    nodes = (NODES[0], node_facts(node("b", lying)))
    parts = only(pod("a", NEW), pod("b", OLD, generation="1"), updated=1)
    told = findings(parts, nodes)
    assert [f.code for f in told] == ["TP7502", "TP7503"]
    assert told[1].object == "Pod/kube-system/canal-b on b"
    found = unexpected(parts, nodes, KNOWN.release(NEW).images, NEW)
    assert {f.object for f in found} == {"Pod/kube-system/canal-b on b"}
    by_container = {f.message.split()[0]: f.message for f in found}
    assert set(by_container) == {"install-cni", "flexvol-driver", "calico-node", "kube-flannel"}
    assert "lies on the node, but is not what runs" in by_container["calico-node"]
    assert "lies on the node" not in by_container["kube-flannel"]
    assert "runs hardened-flannel:v0.26.3-build20250108" in by_container["kube-flannel"]
    assert {f.code for f in found} == {"TP7505"}


NEWER, OLDER = (canal.image(KNOWN.release(release), "hardened-flannel") for release in (NEW, OLD))


@pytest.mark.parametrize(
    ("images", "runs"),
    [
        ([], NEWER),  # the kubelet tells of fifty images only
        ([[NEWER, OLDER]], NEWER),
        ([[NEWER, f"rancher/hardened-flannel@sha256:{NEW}", OLDER]], NEWER),
        ([[NEWER, "rancher/hardened-flannel@sha256:another"], [OLDER]], OLDER),
    ],
    ids=["not told", "without digests", "one image", "the tag has moved"],
)
def test_of_an_image_with_two_tags_the_runtime_tells_any(images: list[list[str]], runs: str) -> None:
    """The pod was made for the new tag; the runtime calls what runs by the old one."""
    raw = node("a")
    raw["status"]["images"] = [{"names": [f"docker.io/{name}" for name in names]} for names in images]
    nodes = (node_facts(raw),)
    parts = only(pod("a", NEW, **{"kube-flannel": {"image": f"docker.io/{OLDER}"}}), desired=1, updated=1)
    told = [f.message for f in unexpected(parts, nodes, KNOWN.release(NEW).images, NEW)]
    assert [f"kube-flannel runs hardened-{runs.partition('hardened-')[2]}," in line for line in told] == (
        [] if runs == NEWER else [True]
    )
    assert findings(parts, nodes) == []


def test_a_container_that_fails_says_why() -> None:
    waiting = {
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
    }
    parts = only(pod("a", NEW), pod("b", NEW, ready="False", **{"calico-node": waiting}), ready=1)
    told = findings(parts, NODES)
    assert [f.code for f in told] == ["TP7502", "TP7504"]
    assert "calico-node CrashLoopBackOff back-off 10s" in told[1].message


def test_a_moved_tag_is_told() -> None:
    moved = {"imageID": "docker.io/rancher/hardened-flannel@sha256:other"}
    told = findings(only(pod("a", NEW), pod("b", NEW, **{"kube-flannel": moved})), NODES)
    assert [(f.code, f.severity) for f in told] == [("TP7507", "warning")]
    assert "on a and b" in told[0].message


def test_a_runtime_that_gives_a_bare_digest() -> None:
    """Some give the image's ID for its name; the pod's own word counts then."""
    bare = {"image": "sha256:0123"}
    parts = only(pod("a", NEW), pod("b", NEW, **{"kube-flannel": bare}))
    assert unexpected(parts, NODES, KNOWN.release(NEW).images, NEW) == []


def test_an_unseen_template_an_empty_daemonset_and_another_network() -> None:
    unseen = daemonset(NEW, desired=0, updated=0, ready=0)
    unseen["status"]["observedGeneration"] = 1
    parts = components([unseen], ())
    assert [f.code for f in findings(parts, ())] == ["TP7501", "TP7502"]
    assert [f.code for f in unexpected(parts, (), {"towpath-agent": "v0.1.0"}, "v0.1.0")] == ["TP7506"]


def test_other_daemonsets_are_left_out() -> None:
    other = daemonset(NEW)
    for one in (
        *other["spec"]["template"]["spec"]["containers"],
        *other["spec"]["template"]["spec"]["initContainers"],
    ):
        one["image"] = "rancher/nginx-ingress-controller:v1"
    assert components([other], ()) == ()
    assert [part.name for part in components([other], (), "kube-system/rke2-canal")] == ["rke2-canal"]


def test_targets_of_probes_are_no_network() -> None:
    """They run the agent's image, and are there while an upgrade is planned under probes."""
    target = objects.targets(Run(name="a", expires="", image="towpath/towpath-agent:v1", python=()))
    assert components([target], ()) == ()
