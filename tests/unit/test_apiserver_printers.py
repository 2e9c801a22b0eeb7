"""Cells of tables as kubectl shows them."""

from typing import Any

import pytest

from towpath.lab.apiserver.printers.cluster import CLUSTER
from towpath.lab.apiserver.printers.core import CORE
from towpath.lab.apiserver.printers.custom import custom_printer, json_path
from towpath.lab.apiserver.printers.pods import pod_cells, pod_status
from towpath.lab.apiserver.printers.table import duration, parse_time
from towpath.lab.apiserver.printers.workloads import WORKLOADS

NOW = parse_time("2026-11-23T12:00:00Z")
META = {"name": "x", "creationTimestamp": "2026-11-23T11:55:00Z"}
Obj = dict[str, Any]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (599, "9m59s"), (600, "10m"),
        (3600, "60m"), (3 * 3600, "3h"), (3 * 3600 + 60, "3h1m"), (8 * 3600, "8h"), (47 * 3600, "47h"),
        (48 * 3600, "2d"), (49 * 3600, "2d1h"), (8 * 86400, "8d"), (2 * 365 * 86400, "2y"),
        (800 * 86400, "2y70d"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_durations_as_apimachinery_writes_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def pod(phase: str, *containers: Obj, inits: list[Obj] | None = None, **more: Any) -> Obj:
    status: Obj = {"phase": phase, "containerStatuses": list(containers)}
    spec: Obj = {"containers": [{"name": f"c{i}"} for i in range(max(len(containers), 1))]}
    if inits is not None:
        status["initContainerStatuses"] = inits
        spec["initContainers"] = [{"name": i.get("name", "i")} for i in inits]
    return {"metadata": {**META, **more.pop("metadata", {})}, "spec": spec, "status": {**status, **more}}


RUNNING = {"ready": True, "state": {"running": {}}}


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (pod("Pending"), "Pending"),
        (pod("Running", RUNNING), "Running"),
        (pod("Pending", {"state": {"waiting": {"reason": "ContainerCreating"}}}), "ContainerCreating"),
        (pod("Running", {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}), "CrashLoopBackOff"),
        (pod("Succeeded", {"state": {"terminated": {"reason": "Completed"}}}), "Completed"),
        (pod("Failed", {"state": {"terminated": {"exitCode": 3}}}), "ExitCode:3"),
        (pod("Failed", {"state": {"terminated": {"signal": 9}}}), "Signal:9"),
        (pod("Failed", reason="Evicted"), "Evicted"),
        (pod("Pending", inits=[{"state": {"running": {}}}]), "Init:0/1"),
        (pod("Pending", inits=[{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]), "Init:Error"),
        (
            pod("Pending", inits=[{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]),
            "Init:ImagePullBackOff",
        ),
        (pod("Running", RUNNING, inits=[{"state": {"terminated": {"exitCode": 0}}}]), "Running"),
        (pod("Running", RUNNING, metadata={"deletionTimestamp": "2026-11-23T12:00:00Z"}), "Terminating"),
        (pod("Running", {"state": {"terminated": {"reason": "Completed"}}}, RUNNING), "NotReady"),
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]),
            "SchedulingGated",
        ),
    ],
)
def test_pod_status(value: Obj, want: str) -> None:
    assert pod_status(value) == want


def test_pod_cells() -> None:
    last = {"terminated": {"finishedAt": "2026-11-23T11:59:00Z"}}
    value = pod("Running", {**RUNNING, "restartCount": 2, "lastState": last}, podIP="10.42.0.2")
    cells = pod_cells(value, NOW)
    assert cells[:6] == ["x", "1/1", "Running", "2 (60s ago)", "5m", "10.42.0.2"]


def test_nodes() -> None:
    node = {
        "metadata": {**META, "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}],
            "nodeInfo": {"kubeletVersion": "v1.33.0"},
        },
    }
    assert CORE["core.Node"].cells(node, NOW)[:5] == [
        "x",
        "NotReady,SchedulingDisabled",
        "control-plane",
        "5m",
        "v1.33.0",
    ]
    assert CORE["core.Node"].cells({"metadata": META}, NOW)[1:3] == ["Unknown", "<none>"]


def test_services_and_endpoints() -> None:
    spec = {
        "type": "NodePort",
        "clusterIP": "10.43.0.9",
        "ports": [{"port": 80, "nodePort": 30080}],
        "selector": {"a": "b"},
    }
    cells = CORE["core.Service"].cells({"metadata": META, "spec": spec}, NOW)
    assert cells == ["x", "NodePort", "10.43.0.9", "<none>", "80:30080/TCP", "5m", "a=b"]
    subsets = [
        {
            "addresses": [{"ip": f"10.0.0.{i}"} for i in range(4)] + [{"ip": "fd00::1"}],
            "ports": [{"port": 80}],
        }
    ]
    cells = CORE["core.Endpoints"].cells({"metadata": META, "subsets": subsets}, NOW)
    assert cells[1] == "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."


def test_workloads() -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    status = {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}
    cells = WORKLOADS["apps.Deployment"].cells({"metadata": META, "spec": spec, "status": status}, NOW)
    assert cells == ["x", "1/3", 2, 1, "5m", "c", "i", "a=b"]
    spec["template"] = {"spec": {"nodeSelector": {"disk": "ssd"}}}
    cells = WORKLOADS["apps.DaemonSet"].cells({"metadata": META, "spec": spec}, NOW)
    assert cells[:8] == ["x", 0, 0, 0, 0, 0, "disk=ssd", "5m"]


@pytest.mark.parametrize("printer", [*CORE.items(), *WORKLOADS.items(), *CLUSTER.items()], ids=lambda p: p[0])
def test_every_row_fills_its_columns_even_of_an_empty_object(printer: tuple[str, Any]) -> None:
    cells = printer[1].cells({"metadata": META, "spec": {}}, NOW)
    assert len(cells) == len(printer[1].columns)


DOCUMENT = {"a": [{"b": 1}, {"b": 2}], "c": {"x.y": "z"}, "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("path", "want"),
    [
        (".a[0].b", [1]), (".a[-1].b", [2]), (".a[*].b", [1, 2]), (".c.x\\.y", ["z"]), (".c['x.y']", ["z"]),
        ('.conditions[?(@.type=="Ready")].status', ["True"]), (".nope.b", []), (".a.b", []), (".a[7]", []),
    ],
)  # fmt: skip
def test_json_paths(path: str, want: list[Any]) -> None:
    assert json_path(path)(DOCUMENT) == want


@pytest.mark.parametrize("path", ["a", ".a[", ".a[?(@.x>1)]", "{.a}"])
def test_json_paths_that_are_not_understood(path: str) -> None:
    with pytest.raises(ValueError, match="unsupported JSONPath"):
        json_path(path)


def test_custom_columns() -> None:
    printer = custom_printer(
        [
            {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
            {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
            {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
            {"name": "None", "type": "string", "jsonPath": ".spec.none"},
        ]
    )
    assert [c["priority"] for c in printer.columns] == [0, 0, 0, 1, 0]
    cells = printer.cells({"metadata": META, "spec": {"n": 5, "on": True}}, NOW)
    assert cells == ["x", 5, True, "5m", None]
