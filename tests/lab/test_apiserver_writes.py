"""Writes: concurrency, status and spec apart, finalizers, graceful deletion, subresources, bad requests."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from apiserver_world import DEPLOYMENTS, MAPS, MERGE, PODS, World, config_map, deployment, pod, world

SPACES = "/api/v1/namespaces"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found:
        yield found


async def test_every_request_needs_a_token(lab: World) -> None:
    assert (await lab.raw("GET", MAPS, Authorization="Bearer wrong"))[0] == 401
    assert (await lab.raw("GET", MAPS, Authorization=""))[0] == 401
    for path in ("/healthz", "/readyz", "/livez", "/version"):
        assert (await lab.raw("GET", path, Authorization=""))[0] == 200


async def test_optimistic_concurrency(lab: World) -> None:
    made = await lab.do("POST", MAPS, config_map("a"), 201)
    changed = await lab.do("PUT", f"{MAPS}/a", {**made, "data": {"k": "1"}})
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    refused = await lab.do("PUT", f"{MAPS}/a", {**made, "data": {"k": "2"}}, 409)
    assert refused["reason"] == "Conflict"
    await lab.do("PUT", f"{MAPS}/a", config_map("a", k="3"))
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"k": "4"}}
    await lab.do("PATCH", f"{MAPS}/a", stale, 409, Content_Type=MERGE)
    wrong = {**config_map("a"), "metadata": {"name": "a", "uid": "other"}}
    await lab.do("PUT", f"{MAPS}/a", wrong, 409)
    options = {"preconditions": {"uid": "other"}}
    await lab.do("DELETE", f"{MAPS}/a", options, 409)


async def test_a_write_that_changes_nothing_is_none(lab: World) -> None:
    made = await lab.do("POST", MAPS, config_map("a", k="v"), 201)
    again = await lab.do("PUT", f"{MAPS}/a", made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await lab.do("POST", DEPLOYMENTS, deployment("d"), 201)
    before = lab.server.store.rv
    await lab.do("PUT", f"{DEPLOYMENTS}/d", deployment("d"))
    assert lab.server.store.rv == before


async def test_spec_and_status_have_each_their_door(lab: World) -> None:
    made = await lab.do("POST", DEPLOYMENTS, {**deployment("d"), "status": {"replicas": 9}}, 201)
    assert "replicas" not in made["status"]
    assert made["metadata"]["generation"] == 1
    both = {**made, "status": {"replicas": 2}, "spec": {**made["spec"], "replicas": 5}}
    after = await lab.do("PUT", f"{DEPLOYMENTS}/d/status", both)
    assert (after["status"]["replicas"], after["spec"]["replicas"], after["metadata"]["generation"]) == (
        2,
        2,
        1,
    )
    both["metadata"].pop("resourceVersion")
    after = await lab.do("PUT", f"{DEPLOYMENTS}/d", {**both, "status": {}})
    assert (after["status"]["replicas"], after["spec"]["replicas"], after["metadata"]["generation"]) == (
        2,
        5,
        2,
    )


async def test_node_status_takes_annotations_as_flanneld_needs(lab: World) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.42.0.0/24"},
    }
    made = await lab.do("POST", "/api/v1/nodes", node, 201)
    assert made["spec"]["podCIDRs"] == ["10.42.0.0/24"]
    patch = {"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": "1.2.3.4"}},
             "spec": {"unschedulable": True},
             "status": {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]}}  # fmt: skip
    after = await lab.do("PATCH", "/api/v1/nodes/n/status", patch, Content_Type=STRATEGIC)
    assert after["metadata"]["annotations"] == {"flannel.alpha.coreos.com/public-ip": "1.2.3.4"}
    assert after["status"]["conditions"][0]["type"] == "NetworkUnavailable"
    assert "unschedulable" not in after["spec"]
    other = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    after = await lab.do("PATCH", "/api/v1/nodes/n/status", other, Content_Type=STRATEGIC)
    assert {c["type"] for c in after["status"]["conditions"]} == {"NetworkUnavailable", "Ready"}
    refused = await lab.do(
        "PATCH", "/api/v1/nodes/n", {"spec": {"podCIDRs": ["10.9.0.0/24"]}}, 422, Content_Type=MERGE
    )
    assert "node updates may not change podCIDR" in refused["message"]


async def test_finalizers_hold_an_object(lab: World) -> None:
    held = config_map("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await lab.do("POST", MAPS, held, 201)
    going = await lab.do("DELETE", f"{MAPS}/a")
    assert going["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    assert (await lab.do("PATCH", f"{MAPS}/a", more, 422, Content_Type=MERGE))["reason"] == "Invalid"
    await lab.do("PATCH", f"{MAPS}/a", {"metadata": {"finalizers": []}}, Content_Type=MERGE)
    await lab.do("GET", f"{MAPS}/a", want=404)


@pytest.mark.parametrize(
    ("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")]
)
async def test_propagation_is_left_to_the_garbage_collector(lab: World, policy: str, finalizer: str) -> None:
    await lab.do("POST", DEPLOYMENTS, deployment("d"), 201)
    going = await lab.do("DELETE", f"{DEPLOYMENTS}/d", {"propagationPolicy": policy})
    assert going["metadata"]["finalizers"] == [finalizer]


async def test_pods_stop_gracefully(lab: World) -> None:
    await lab.do("POST", PODS, pod("bound", node="n"), 201)
    await lab.do("POST", PODS, pod("loose"), 201)
    await lab.do("DELETE", f"{PODS}/loose")
    await lab.do("GET", f"{PODS}/loose", want=404)
    going = await lab.do("DELETE", f"{PODS}/bound")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 30
    shorter = await lab.do("DELETE", f"{PODS}/bound?gracePeriodSeconds=5")
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    confirm = {"gracePeriodSeconds": 0, "preconditions": {"uid": going["metadata"]["uid"]}}
    await lab.do("DELETE", f"{PODS}/bound", confirm)
    await lab.do("GET", f"{PODS}/bound", want=404)


async def test_namespaces_end_when_they_are_finalized(lab: World) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
    made = await lab.do("POST", SPACES, space, 201)
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
    going = await lab.do("DELETE", f"{SPACES}/x")
    assert going["status"]["phase"] == "Terminating"
    refused = await lab.do("POST", f"{SPACES}/x/configmaps", config_map("a"), 403)
    assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await lab.do("PUT", f"{SPACES}/x/finalize", {**going, "spec": {"finalizers": []}})
    await lab.do("GET", f"{SPACES}/x", want=404)
    await lab.do("DELETE", f"{SPACES}/default", want=403)


async def test_binding(lab: World) -> None:
    await lab.do("POST", PODS, pod("a"), 201)
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n"},
    }
    await lab.do("POST", f"{PODS}/a/binding", binding, 201)
    found = await lab.do("GET", f"{PODS}/a")
    assert found["spec"]["nodeName"] == "n"
    assert found["status"]["conditions"][0]["type"] == "PodScheduled"
    await lab.do("POST", f"{PODS}/a/binding", binding, 409)
    moved = {"spec": {"nodeName": "m"}}
    assert (await lab.do("PATCH", f"{PODS}/a", moved, 422, Content_Type=MERGE))["reason"] == "Invalid"


async def test_eviction_respects_budgets(lab: World) -> None:
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    for name in ("a", "b"):
        await lab.do("POST", PODS, pod(name, node="n", app="x"), 201)
        await lab.do("PATCH", f"{PODS}/{name}/status", ready, Content_Type=MERGE)
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
              "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "x"}}}}  # fmt: skip
    await lab.do("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget, 201)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    await lab.do("POST", f"{PODS}/a/eviction", eviction, 201)
    refused = await lab.do("POST", f"{PODS}/b/eviction", {**eviction, "metadata": {"name": "b"}}, 429)
    assert "disruption budget" in refused["message"]


async def test_scale(lab: World) -> None:
    await lab.do("POST", DEPLOYMENTS, deployment("d"), 201)
    scale = await lab.do("GET", f"{DEPLOYMENTS}/d/scale")
    assert (scale["kind"], scale["spec"]["replicas"], scale["status"]["selector"]) == ("Scale", 2, "app=d")
    scale["spec"]["replicas"] = 4
    await lab.do("PUT", f"{DEPLOYMENTS}/d/scale", scale)
    await lab.do("PUT", f"{DEPLOYMENTS}/d/scale", scale, 409)
    after = await lab.do("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 0}}, Content_Type=MERGE)
    assert after["spec"]["replicas"] == 0
    await lab.do("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": -1}}, 422, Content_Type=MERGE)
    assert (await lab.do("GET", f"{DEPLOYMENTS}/d"))["metadata"]["generation"] == 3


async def test_names_are_generated(lab: World) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x-"}}
    names = {(await lab.do("POST", MAPS, body, 201))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(n.startswith("x-") and len(n) == 7 for n in names)


async def test_dry_run_stores_nothing(lab: World) -> None:
    before = lab.server.store.rv
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}]},
    }
    made = await lab.do("POST", "/api/v1/namespaces/default/services?dryRun=All", service, 201)
    assert made["spec"]["clusterIP"].startswith("10.43.")
    assert lab.server.store.rv == before
    await lab.do("POST", f"{MAPS}?dryRun=Some", config_map("a"), 422)


async def test_unknown_fields(lab: World) -> None:
    body = {**config_map("a"), "bogus": 1, "metadata": {"name": "a", "wrong": True}}
    refused = await lab.do("POST", f"{MAPS}?fieldValidation=Strict", body, 400)
    assert 'unknown field "bogus"' in refused["message"]
    assert 'unknown field "metadata.wrong"' in refused["message"]
    made = await lab.do("POST", f"{MAPS}?fieldValidation=Warn", body, 201)
    assert 'unknown field \\"bogus\\"' in lab.headers["Warning"]
    assert "bogus" not in made
    typed = {**deployment("d"), "spec": {**deployment("d")["spec"], "replicas": "two"}}
    refused = await lab.do("POST", DEPLOYMENTS, typed, 400)
    assert "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas" in refused["message"]


async def test_bad_requests(lab: World) -> None:
    await lab.do("POST", MAPS, b"{not json", 400)
    await lab.do("POST", MAPS, b"[]", 400)
    await lab.do("POST", MAPS, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}, 400)
    await lab.do("POST", MAPS, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": 5}, 400)
    await lab.do("POST", MAPS, {**config_map("a"), "metadata": {"name": "a", "namespace": "other"}}, 400)
    await lab.do("POST", "/api/v1/namespaces/none/configmaps", config_map("a"), 404)
    await lab.do("POST", MAPS, config_map("UPPER"), 422)
    await lab.do("GET", "/api/v1/namespaces/default/bogus", want=404)
    await lab.do("GET", "/apis/none/v1/things", want=404)
    await lab.do("PUT", MAPS, config_map("a"), 405)
    await lab.do("POST", "/api/v1/configmaps", config_map("a"), 405)
    await lab.do("POST", MAPS, config_map("a"), 201)
    await lab.do("PATCH", f"{MAPS}/a", {"x": 1}, 415, Content_Type="text/plain")
    await lab.do("PUT", f"{MAPS}/a", config_map("b"), 400)
    await lab.do("POST", MAPS, b"k8s\x00garbage", 415, Content_Type="application/vnd.kubernetes.protobuf")
    text = b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: y}\ndata: {d: '2024-01-01'}\n"
    made = await lab.do("POST", MAPS, text, 201, Content_Type="application/yaml")
    assert made["data"] == {"d": "2024-01-01"}


async def test_secrets_take_text(lab: World) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}}
    made = await lab.do("POST", "/api/v1/namespaces/default/secrets", secret, 201)
    assert made["data"] == {"k": base64.b64encode(b"v").decode()}
    assert "stringData" not in made
    assert made["type"] == "Opaque"


async def test_events_live_in_both_groups(lab: World) -> None:
    event = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "R",
             "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "note": "hello",
             "reportingController": "c", "type": "Normal"}  # fmt: skip
    await lab.do("POST", "/apis/events.k8s.io/v1/namespaces/default/events", event, 201)
    core = await lab.do("GET", "/api/v1/namespaces/default/events/e")
    assert (core["involvedObject"]["name"], core["message"], core["kind"]) == ("p", "hello", "Event")
    new = await lab.do("GET", "/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert (new["regarding"]["name"], new["note"], new["apiVersion"]) == ("p", "hello", "events.k8s.io/v1")
    found = await lab.do(
        "GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dp,involvedObject.kind%3DPod"
    )
    assert len(found["items"]) == 1


async def test_service_account_tokens(lab: World) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa"}}
    path = "/api/v1/namespaces/default/serviceaccounts"
    await lab.do("POST", path, account, 201)
    request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
    request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
    issued = await lab.do("POST", f"{path}/sa/token", request, 201)
    token = issued["status"]["token"]
    who = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
    answer = await lab.do(
        "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", who, 201, Authorization=f"Bearer {token}"
    )
    assert answer["status"]["userInfo"]["username"] == "system:serviceaccount:default:sa"


async def test_delete_collection(lab: World) -> None:
    for name in ("a", "b"):
        body = config_map(name)
        body["metadata"]["labels"] = {"n": name}
        await lab.do("POST", MAPS, body, 201)
    await lab.do("DELETE", f"{MAPS}?labelSelector=n%3Da")
    assert [i["metadata"]["name"] for i in (await lab.do("GET", MAPS))["items"]] == ["b"]


async def test_apply_owns_fields(lab: World) -> None:
    async def apply(
        manager: str, body: dict[str, object], want: int = 200, query: str = ""
    ) -> dict[str, object]:
        path = f"{MAPS}/a?fieldManager={manager}{query}"
        full = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, **body}
        return await lab.do("PATCH", path, full, want, Content_Type=APPLY)

    await apply("one", {"data": {"x": "1", "y": "1"}}, 201)
    after = await apply("two", {"data": {"z": "2", "y": "1"}})
    assert after["data"] == {"x": "1", "y": "1", "z": "2"}
    refused = await apply("two", {"data": {"y": "2"}}, 409)
    assert 'conflict with "one": .data.y' in str(refused["message"])
    after = await apply("two", {"data": {"y": "2"}}, query="&force=true")
    assert after["data"] == {"x": "1", "y": "2"}
    after = await apply("one", {"data": {}})
    assert after["data"] == {"y": "2"}
    await lab.do("PATCH", f"{MAPS}/a?fieldManager=three", {"data": {"y": "3"}}, Content_Type=MERGE)
    assert "three" in str((await apply("two", {"data": {"y": "2"}}, 409))["message"])


async def test_bodies_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.lab.apiserver.app.MAX_BODY", 2048)
    async with world(tmp_path) as lab:
        refused = await lab.do("POST", MAPS, config_map("a", x="y" * 4096), 413)
        assert refused["reason"] == "RequestEntityTooLarge"
