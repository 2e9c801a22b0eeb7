"""Images lie on every node before the network is touched, and what runs later is them."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from towpath.catalogue import load
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import PODS
from towpath.upgrade import gates
from towpath.upgrade import plan as plans
from towpath.upgrade.plan import Gates, NodeStep, Plan
from towpath.upgrade.pulling import NotPulled, Pulled, agreed, judged, pull

A, B = "rancher/hardened-calico:v2", "rancher/hardened-flannel:v2"
DIGEST = "sha256:" + "a" * 64


def status(name: str, image_id: str = "", reason: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "told"}} if reason else {}
    return {"name": name, "imageID": image_id, "state": state}


def test_what_a_pullers_containers_tell() -> None:
    asked = {"image-0": A, "image-1": B}
    whole = f"docker.io/rancher/x@{DIGEST}"
    assert judged(asked, [status("image-0", whole), status("image-1", whole, "RunContainerError")]) == Pulled(
        {A: DIGEST, B: DIGEST}
    )
    assert judged(asked, [status("image-0", whole), status("image-1", "", "ErrImagePull")]) == Pulled(
        {A: DIGEST}
    )
    hopeless = judged(asked, [status("image-1", "", "ImagePullBackOff"), status("other", whole)])
    assert hopeless == Pulled({}, f"{B} ImagePullBackOff told")


def test_all_nodes_have_the_same() -> None:
    assert agreed({"n1": Pulled({A: "1"}), "n2": Pulled({A: "1"})}) == {A: "1"}
    with pytest.raises(NotPulled, match=r"1 on n1; 2 on n2.*tag moved"):
        agreed({"n1": Pulled({A: "1"}), "n2": Pulled({A: "2"})})
    with pytest.raises(NotPulled, match="1 of 2 nodes have not pulled the images: n2: no space"):
        agreed({"n1": Pulled({A: "1"}), "n2": Pulled(why="no space")})


async def test_a_pod_on_every_node_that_goes_away_again() -> None:
    server = await FakeApiServer.start()
    async with Client(server.config()) as client:
        pulling = asyncio.create_task(
            pull(client, "kube-system", ["n1", "n2"], [A, B], [{"name": "regcred"}], 30, lambda _: None)
        )
        while len(server.objects.get("core/v1/pods", {})) < 2:  # noqa: ASYNC110 (of another task)
            await asyncio.sleep(0)
        for raw in list(server.objects["core/v1/pods"].values()):
            spec = raw["spec"]
            assert (spec["hostNetwork"], spec["imagePullSecrets"]) == (True, [{"name": "regcred"}])
            done = [status(one["name"], f"x@{DIGEST}") for one in spec["containers"]]
            server.put(PODS, {**raw, "status": {"containerStatuses": done}})
        assert agreed(await pulling) == {A: DIGEST, B: DIGEST}
        assert not server.objects["core/v1/pods"]
        late = await pull(client, "kube-system", ["n1"], [A], (), 0.0, lambda _: None)
        assert late["n1"].why == f"not pulled within 0 s: {A}"
    await server.down()


OTHER = "sha256:" + "b" * 64
ALIAS = "rancher/hardened-calico:latest"  # of the same image: runtimes tell any tag of what runs


@pytest.mark.parametrize(
    ("runs", "called", "asked", "pulled", "state"),
    [
        (DIGEST, A, A, True, "pass"),
        (OTHER, A, A, True, "fail"),
        (DIGEST, ALIAS, A, True, "pass"),
        (OTHER, ALIAS, A, True, "fail"),
        (DIGEST, ALIAS, A, False, "pass"),
        (DIGEST, ALIAS, ALIAS, False, "fail"),
    ],
)
async def test_what_runs_is_what_was_pulled(
    runs: str, called: str, asked: str, pulled: bool, state: str
) -> None:
    unsigned = Plan(
        created="now",
        cluster="uid",
        namespace="kube-system",
        daemonset="rke2-canal",
        source="1",
        target="2",
        images={"calico-node": ("rancher/hardened-calico:v1", A)},
        strategy={},
        nodes=(NodeStep("n1", ""),),
        gates=Gates(sandbox=False),
        digests={A: DIGEST} if pulled else {},
    )
    plan = plans.sign(unsigned)
    assert plans.load(plans.dump(plan)) == plan != replace(plan, digests={"x": DIGEST})
    server = await FakeApiServer.start()
    container = {"name": "calico-node", "image": asked}
    own = {
        "metadata": {
            "name": "p",
            "namespace": "kube-system",
            "ownerReferences": [{"kind": "DaemonSet", "name": "rke2-canal"}],
        },
        "spec": {"nodeName": "n1", "containers": [container]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {**container, "image": called, "ready": True, "imageID": f"docker.io/x@{runs}"}
            ],
        },
    }
    server.put(PODS, own)
    async with Client(server.config()) as client:
        found = await gates.judge(client, plan, "n1", 0.0, load.builtin().known.log)
    await server.down()
    assert found.state == state, found
    assert (
        state == "pass"
        or "was pulled for the plan" in found.why
        or "runs hardened-calico:latest" in found.why
    )
