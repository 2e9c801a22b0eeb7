import msgspec
from controller_objects import pod, service

from towpath.lab.controllers.actions import Create, Delete, Patch
from towpath.lab.controllers.endpoints_plan import candidates, endpoint_slices, plan_endpoints, plan_slices
from towpath.lab.controllers.objects_core import Endpoints, EndpointSlice


def made(name: str, body: dict[str, object]) -> EndpointSlice:
    merged = msgspec.to_builtins(body)
    merged["metadata"] |= {"name": name, "namespace": "default", "uid": name}
    return msgspec.convert(merged, EndpointSlice)


def test_dual_stack_has_one_slice_a_family() -> None:
    item = service("IPv6", "IPv4")
    backing = candidates(item, [pod("a", "n1", ready=True, ips=("10.42.0.2", "fd00::2"))])
    slices = list(endpoint_slices(item, backing).values())
    assert [s["addressType"] for s in slices] == ["IPv6", "IPv4"]
    assert [s["endpoints"][0]["addresses"] for s in slices] == [["fd00::2"], ["10.42.0.2"]]
    assert slices[0]["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]


def test_conditions_follow_readiness_and_termination() -> None:
    item = service()
    pods = [
        pod("a", "n1", ready=True, ips=("10.42.0.2",)),
        pod("b", "n1", ips=("10.42.0.3",)),
        pod("c", "n1", ready=True, deleting=True, ips=("10.42.0.4",)),
        pod("d", "n1", ready=True, phase="Succeeded", ips=("10.42.0.5",)),
        pod("e", "n1", ready=True),
    ]
    (one,) = endpoint_slices(item, candidates(item, pods)).values()
    states = {e["targetRef"]["name"]: tuple(e["conditions"].values()) for e in one["endpoints"]}
    assert states == {"a": (True, True, False), "b": (False, False, False), "c": (False, True, True)}
    open_ = service(publishNotReadyAddresses=True)
    (one,) = endpoint_slices(open_, candidates(open_, pods)).values()
    assert all(e["conditions"]["ready"] for e in one["endpoints"])


def test_named_ports_may_differ_from_pod_to_pod() -> None:
    item = service(ports=[{"port": 80, "targetPort": "http", "protocol": "TCP", "name": "web"}])
    other = [{"name": "c", "ports": [{"containerPort": 8080, "name": "http"}]}]
    pods = [
        pod("a", "n1", ready=True, ips=("10.42.0.2",)),
        pod("b", "n1", ready=True, ips=("10.42.0.3",), containers=other),
        pod("c", "n1", ready=True, ips=("10.42.0.4",), containers=[{"name": "c"}]),
    ]
    slices = endpoint_slices(item, candidates(item, pods)).values()
    assert sorted([p["port"] for p in s["ports"]] for s in slices) == [[], [80], [8080]]


def test_a_slice_holds_a_hundred() -> None:
    item = service()
    pods = [pod(f"p{i:03}", "n1", ready=True, ips=(f"10.42.{i // 200}.{i % 200 + 2}",)) for i in range(250)]
    slices = endpoint_slices(item, candidates(item, pods))
    assert sorted(len(s["endpoints"]) for s in slices.values()) == [50, 100, 100]


def test_writes_are_differences_only() -> None:
    item = service()
    one = pod("a", "n1", ready=True, ips=("10.42.0.2",))
    backing = candidates(item, [one])
    (create,) = plan_slices(item, backing, [])
    assert isinstance(create, Create)
    held = [made(n, b) for n, b in endpoint_slices(item, backing).items()]
    assert plan_slices(item, backing, held) == []
    more = candidates(item, [one, pod("b", "n2", ready=True, ips=("10.42.1.2",))])
    assert [type(a) for a in plan_slices(item, more, held)] == [Patch]
    assert [type(a) for a in plan_slices(service("IPv6"), backing, held)] == [Create, Delete]


def test_no_endpoints_leave_one_empty_slice() -> None:
    (empty,) = endpoint_slices(service(), []).values()
    assert empty["endpoints"] == []


def test_legacy_endpoints_have_the_primary_family_only() -> None:
    item = service("IPv4", "IPv6")
    pods = [
        pod("a", "n1", ready=True, ips=("10.42.0.2", "fd00::2")),
        pod("b", "n2", ips=("10.42.1.2", "fd00::3")),
        pod("c", "n2", ready=True, deleting=True, ips=("10.42.1.3", "fd00::4")),
    ]
    backing = candidates(item, pods)
    (create,) = plan_endpoints(item, backing, None)
    assert isinstance(create, Create)
    (subset,) = create.body["subsets"]
    assert [a["ip"] for a in subset["addresses"]] == ["10.42.0.2"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.42.1.2"]
    held = msgspec.convert(create.body, Endpoints)
    assert plan_endpoints(item, backing, held) == []
