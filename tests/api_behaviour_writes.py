"""What writes promise, whoever serves them. Subclasses provide the fixture ``cluster``."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api_cluster import CRDS, DEPLOYMENTS, MAPS, NODES, PODS, SERVICES, Cluster, Space, eventually, space
from towpath.catalogue import load
from towpath.kube.errors import AlreadyExists, BadRequest, Conflict, Invalid, NotFound
from towpath.kube.kinds import DAEMONSETS, Kind, Raw
from towpath.lab import canal
from towpath.upgrade.conductor import images_patch, strategy_patch

GADGETS: Kind[Raw] = Kind(plural="gadgets", type=dict, group="example.org")


class Writes:
    """Create, update, patch, delete, subresources, custom resources."""

    @pytest.fixture
    async def here(self, cluster: Cluster) -> AsyncIterator[Space]:
        """A namespace and a client of it."""
        async with space(cluster) as one:
            yield one

    async def test_the_server_fills_in_metadata(self, here: Space) -> None:
        made = await here.client.create(MAPS, here.map("m", k="v"))
        meta = made["metadata"]
        assert meta["uid"]
        assert meta["creationTimestamp"].endswith("Z")
        assert meta["namespace"] == here.namespace
        assert made == await here.client.get(MAPS, "m", here.namespace)

    async def test_names_are_generated(self, here: Space) -> None:
        given = {"metadata": {"generateName": "some-"}}
        names = [(await here.client.create(MAPS, given, here.namespace))["metadata"]["name"] for _ in "12"]
        assert len(set(names)) == 2
        assert all(name.startswith("some-") and len(name) == 10 for name in names)

    async def test_refusals_of_create(self, here: Space) -> None:
        await here.client.create(MAPS, here.map("m"))
        with pytest.raises(AlreadyExists):
            await here.client.create(MAPS, here.map("m"))
        with pytest.raises(Invalid):
            await here.client.create(MAPS, here.map("Not_A_Name"))
        with pytest.raises(Invalid):
            await here.client.create(PODS, here.pod("p", containers=[]))
        with pytest.raises(NotFound):
            await here.client.create(MAPS, {"metadata": {"name": "m"}}, "no-such-namespace")
        with pytest.raises(BadRequest):
            await here.client.create(MAPS, {"metadata": {"name": "m", "namespace": "other"}, "kind": "Pod"})
        with pytest.raises(BadRequest):
            await here.client.request("POST", MAPS.path(here.namespace), body=b"{nonsense")

    async def test_an_update_needs_the_present_version(self, here: Space) -> None:
        first = await here.client.create(MAPS, here.map("m", k="1"))
        second = await here.client.update(MAPS, {**first, "data": {"k": "2"}})
        assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
        with pytest.raises(Conflict, match="the object has been modified"):
            await here.client.update(MAPS, {**first, "data": {"k": "3"}})
        blind = await here.client.update(MAPS, here.map("m", k="4"))  # none given: whatever is there
        assert blind["data"] == {"k": "4"}
        with pytest.raises(NotFound):
            await here.client.update(MAPS, here.map("absent"))

    async def test_an_object_of_another_life_is_a_conflict(self, here: Space) -> None:
        first = await here.client.create(MAPS, here.map("m"))
        await here.client.delete(MAPS, "m", here.namespace)
        await here.client.create(MAPS, here.map("m"))
        stale = here.map("m", k="1")
        stale["metadata"]["uid"] = first["metadata"]["uid"]
        with pytest.raises(Conflict):
            await here.client.update(MAPS, stale)

    async def test_a_patch_may_name_the_version_it_is_for(self, here: Space) -> None:
        made = await here.client.create(MAPS, here.map("m"))
        await here.client.patch(MAPS, "m", {"data": {"k": "1"}}, here.namespace)
        with pytest.raises(Conflict):
            version = {"resourceVersion": made["metadata"]["resourceVersion"]}
            await here.client.patch(MAPS, "m", {"metadata": version, "data": {"k": "2"}}, here.namespace)

    async def test_merge_patch(self, here: Space) -> None:
        await here.client.create(MAPS, here.map("m", {"l": "1"}, a="1", b="2"))
        change = {"data": {"a": None, "c": "3"}, "metadata": {"labels": None}}
        after = await here.client.patch(MAPS, "m", change, here.namespace)
        assert after["data"] == {"b": "2", "c": "3"}
        assert not after["metadata"].get("labels")
        with pytest.raises(NotFound):
            await here.client.patch(MAPS, "absent", change, here.namespace)

    async def test_json_patch(self, here: Space) -> None:
        await here.client.create(MAPS, here.map("m", a="1"))
        steps = [
            {"op": "test", "path": "/data/a", "value": "1"},
            {"op": "add", "path": "/metadata/labels", "value": {"b/c": "2"}},
            {"op": "replace", "path": "/metadata/labels/b~1c", "value": "3"},
            {"op": "move", "from": "/data/a", "path": "/data/d"},
        ]
        after = await here.client.patch(MAPS, "m", steps, here.namespace, type="json")
        assert after["data"] == {"d": "1"}
        assert after["metadata"]["labels"] == {"b/c": "3"}
        with pytest.raises(Invalid):
            await here.client.patch(MAPS, "m", steps, here.namespace, type="json")  # the test fails now

    async def test_strategic_patch_merges_lists_by_key(self, here: Space) -> None:
        ports = [{"name": "a", "port": 1, "protocol": "TCP"}, {"name": "b", "port": 2, "protocol": "TCP"}]
        service = {"metadata": {"name": "s"}, "spec": {"ports": ports, "selector": {"x": "y"}}}
        await here.client.create(SERVICES, service, here.namespace)
        change = {"spec": {"ports": [{"port": 2, "targetPort": 22}, {"port": 1, "$patch": "delete"}]}}
        after = await here.client.patch(SERVICES, "s", change, here.namespace, type="strategic")
        found = [(port["name"], port["port"], port["targetPort"]) for port in after["spec"]["ports"]]
        assert found == [("b", 2, 22)]

    async def test_custom_resources_know_no_strategic_patch(self, here: Space) -> None:
        await _gadgets(here)
        await here.client.create(GADGETS, _gadget("g"), here.namespace)
        with pytest.raises(BadRequest, match=r"415"):
            await here.client.patch(GADGETS, "g", {"spec": {}}, here.namespace, type="strategic")

    async def test_what_a_node_agent_writes(self, here: Space) -> None:
        """Annotations and one condition in one patch of the status; nobody else's condition is touched."""
        name = f"{here.namespace}-node"
        ready = {"type": "Ready", "status": "True", "reason": "r", "message": "m"}
        await here.client.create(NODES, {"metadata": {"name": name}, "status": {"conditions": [ready]}})
        network = {"type": "NetworkUnavailable", "status": "False", "reason": "Up", "message": "m"}
        change = {
            "metadata": {"annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"}},
            "status": {"conditions": [network]},
        }
        for _ in "12":
            await here.client.patch(NODES, name, change, type="strategic", subresource="status")
        node = await here.client.get(NODES, name)
        assert node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-type"] == "vxlan"
        conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        assert conditions == {"Ready": "True", "NetworkUnavailable": "False"}
        await here.client.patch(NODES, name, {"spec": {"unschedulable": True}}, subresource="status")
        assert not (await here.client.get(NODES, name))["spec"].get("unschedulable")
        await here.client.delete(NODES, name)

    async def test_apply_owns_what_it_names(self, here: Space) -> None:
        made = await _apply(here, "one", a="1", b="2")
        assert made["data"] == {"a": "1", "b": "2"}
        with pytest.raises(Conflict, match=r'conflict with "one".*\.data\.a'):
            await _apply(here, "two", a="3")
        forced = await _apply(here, "two", force=True, a="3", c="4")
        assert forced["data"] == {"a": "3", "b": "2", "c": "4"}
        rest = await _apply(here, "two", c="4")  # what it no longer names goes with its last owner
        assert rest["data"] == {"b": "2", "c": "4"}
        managers = {one["manager"] for one in rest["metadata"]["managedFields"]}
        assert managers == {"one", "two"}

    async def test_deletion_on_conditions(self, here: Space) -> None:
        made = await here.client.create(MAPS, here.map("m"))
        meta = made["metadata"]
        with pytest.raises(Conflict):
            await here.client.delete(MAPS, "m", here.namespace, uid="00000000-0000-0000-0000-000000000000")
        with pytest.raises(Conflict):
            await here.client.delete(MAPS, "m", here.namespace, resource_version="1")
        await here.client.delete(
            MAPS, "m", here.namespace, uid=meta["uid"], resource_version=meta["resourceVersion"]
        )
        with pytest.raises(NotFound):
            await here.client.delete(MAPS, "m", here.namespace)

    async def test_finalizers_hold_an_object(self, here: Space) -> None:
        held = here.map("m")
        held["metadata"]["finalizers"] = ["example.org/hold"]
        await here.client.create(MAPS, held)
        async with here.watching(MAPS, field_selector="metadata.name=m") as watch:
            await here.client.delete(MAPS, "m", here.namespace)
            dying = await here.client.get(MAPS, "m", here.namespace)
            assert dying["metadata"]["deletionTimestamp"]
            with pytest.raises((Invalid, Conflict)):
                more = {"metadata": {"finalizers": ["example.org/hold", "example.org/more"]}}
                await here.client.patch(MAPS, "m", more, here.namespace)
            await here.client.patch(MAPS, "m", {"metadata": {"finalizers": None}}, here.namespace)
            assert [kind for kind, _ in await watch.types(2)] == ["MODIFIED", "DELETED"]
        with pytest.raises(NotFound):
            await here.client.get(MAPS, "m", here.namespace)

    async def test_a_pod_that_runs_is_given_time(self, here: Space) -> None:
        await here.client.create(PODS, here.pod("p", nodeName="nowhere"))
        await here.client.delete(PODS, "p", here.namespace, grace_seconds=5)
        dying = (await here.client.get(PODS, "p", here.namespace))["metadata"]
        assert dying["deletionGracePeriodSeconds"] == 5
        await here.client.delete(PODS, "p", here.namespace, grace_seconds=0, uid=dying["uid"])
        with pytest.raises(NotFound):
            await here.client.get(PODS, "p", here.namespace)

    async def test_the_status_of_a_pod_is_apart(self, here: Space) -> None:
        await here.client.create(PODS, here.pod("p"))
        change = {
            "spec": {"priority": 7},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        }
        after = await here.client.patch(
            PODS, "p", change, here.namespace, type="strategic", subresource="status"
        )
        assert after["status"]["phase"] == "Running"
        assert after["spec"].get("priority") != 7
        back = await here.client.patch(PODS, "p", {"status": {"phase": "Failed"}}, here.namespace)
        assert back["status"]["phase"] == "Running"
        with pytest.raises(Invalid):
            await here.client.patch(PODS, "p", {"spec": {"nodeName": "x"}}, here.namespace)

    async def test_a_pod_is_bound_once(self, here: Space) -> None:
        await here.client.create(PODS, here.pod("p"))
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "one"}}
        await here.client.create(PODS, binding, here.namespace, subresource="binding")
        pod = await here.client.get(PODS, "p", here.namespace)
        assert pod["spec"]["nodeName"] == "one"
        with pytest.raises(Conflict):
            await here.client.create(PODS, binding, here.namespace, subresource="binding")

    async def test_scale_and_generation(self, here: Space) -> None:
        container = {"name": "c", "image": "example.org/none:1"}
        pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
        spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": pod, "paused": True}
        await here.client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, here.namespace)
        before = await here.client.get(DEPLOYMENTS, "d", here.namespace)
        scale = await here.client.get(DEPLOYMENTS, "d", here.namespace, subresource="scale")
        assert scale["kind"] == "Scale"
        change = {"metadata": {"labels": {"x": "y"}}}
        same = await here.client.patch(DEPLOYMENTS, "d", change, here.namespace)
        assert same["metadata"]["generation"] == before["metadata"]["generation"]
        more = {"spec": {"revisionHistoryLimit": 3}}
        after = await here.client.patch(DEPLOYMENTS, "d", more, here.namespace)
        assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1

    async def test_services_get_addresses_of_both_families(self, here: Space) -> None:
        spec = {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]}
        made = await here.client.create(SERVICES, {"metadata": {"name": "s"}, "spec": spec}, here.namespace)
        four, six = made["spec"]["clusterIPs"]
        assert made["spec"]["clusterIP"] == four
        assert made["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
        assert ":" in six
        with pytest.raises(Invalid):
            changed = {"spec": {"clusterIP": "10.43.0.77", "clusterIPs": ["10.43.0.77", six]}}
            await here.client.patch(SERVICES, "s", changed, here.namespace)

    async def test_custom_resources(self, here: Space) -> None:
        await _gadgets(here)
        made = await here.client.create(GADGETS, _gadget("g", size=3, unknown=1), here.namespace)
        assert made["spec"] == {"size": 3, "colour": "grey"}  # pruned, defaulted
        assert "status" not in made
        with pytest.raises(Invalid):
            await here.client.create(GADGETS, _gadget("h", size="big"), here.namespace)
        done = {"metadata": {"labels": {"a": "b"}}, "spec": {"size": 9}, "status": {"done": True}}
        after = await here.client.patch(GADGETS, "g", done, here.namespace, subresource="status")
        assert after["status"] == {"done": True}
        assert after["spec"]["size"] == 3
        assert "labels" not in after["metadata"]
        assert after["metadata"]["generation"] == 1
        spec = await here.client.patch(GADGETS, "g", {"spec": {"size": 4}, "status": None}, here.namespace)
        assert spec["status"] == {"done": True}
        assert spec["metadata"]["generation"] == 2
        async with here.watching(GADGETS) as watch:
            await here.client.delete(GADGETS, "g", here.namespace)
            assert await watch.types(1) == [("DELETED", "g")]

    async def test_a_daemonset_as_the_conductor_changes_it(self, here: Space) -> None:
        """Nothing stays of the strategy before, and of the template only the images change."""
        before = canal.daemonset(load.builtin().release("v1.32.1+rke2r1"))
        before["metadata"]["namespace"] = here.namespace
        made = await here.client.create(DAEMONSETS, before, here.namespace)

        async def patched(body: dict[str, Any]) -> Raw:
            return await here.client.patch(DAEMONSETS, canal.NAME, body, here.namespace, type="strategic")

        frozen = await patched(strategy_patch({"type": "OnDelete"}))
        assert frozen["spec"]["updateStrategy"] == {"type": "OnDelete"}
        images = {"install-cni": "x/hardened-calico:1", "kube-flannel": "x/hardened-flannel:2"}
        changed = await patched(images_patch(frozen, images))
        for key in ("initContainers", "containers"):
            for old, new in zip(
                made["spec"]["template"]["spec"][key], changed["spec"]["template"]["spec"][key], strict=True
            ):
                assert new == {**old, "image": images.get(old["name"], old["image"])}
        released = await patched(strategy_patch(made["spec"]["updateStrategy"]))
        assert released["spec"]["updateStrategy"] == made["spec"]["updateStrategy"]


def _gadget(name: str, **spec: Any) -> Raw:
    body = {"apiVersion": "example.org/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": spec}
    return {**body, "status": {"done": False}}


async def _gadgets(here: Space) -> None:
    """The custom resource, made once a server, Established."""
    fields = {"size": {"type": "integer"}, "colour": {"type": "string", "default": "grey"}}
    status = {"type": "object", "properties": {"done": {"type": "boolean"}}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}
    schema["properties"]["status"] = status  # type: ignore[index]
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"}
    spec = {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    with contextlib.suppress(AlreadyExists):
        await here.client.create(CRDS, {**crd, "metadata": {"name": "gadgets.example.org"}, "spec": spec})
    await eventually(lambda: here.client.list(GADGETS, here.namespace), NotFound)


async def _apply(here: Space, manager: str, *, force: bool = False, **data: str) -> Raw:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
    return await here.client.patch(
        MAPS, "applied", body, here.namespace, type="apply", field_manager=manager, force=force
    )
