"""Cells of the other core kinds."""

from typing import Any

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.printers.pods import NONE, POD, condition
from towpath.lab.apiserver.printers.selector_text import selector_text
from towpath.lab.apiserver.printers.table import Printer, age, columns, since

ROLE = "node-role.kubernetes.io/"


def name_of(obj: Obj) -> str:
    """metadata.name."""
    return str(obj["metadata"]["name"])


def _address(node: Obj, kind: str) -> str:
    found = (node.get("status") or {}).get("addresses") or ()
    return next((a.get("address", "") for a in found if a.get("type") == kind), NONE)


def _node(node: Obj, now: float) -> list[Any]:
    info = (node.get("status") or {}).get("nodeInfo") or {}
    ready = condition(node, "Ready").get("status")
    state = {"True": "Ready", None: "Unknown"}.get(ready, "NotReady")
    if (node.get("spec") or {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = node["metadata"].get("labels") or {}
    roles = sorted(k[len(ROLE) :] for k in labels if k.startswith(ROLE) and len(k) > len(ROLE))
    return [
        name_of(node),
        state,
        ",".join(roles) or NONE,
        age(node, now),
        info.get("kubeletVersion") or "",
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _external(service: Obj) -> str:
    spec, kind = service["spec"], service["spec"].get("type")
    extra = list(spec.get("externalIPs") or ())
    if kind == "ExternalName":
        return str(spec.get("externalName") or NONE)
    if kind == "LoadBalancer":
        points = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        extra = [p.get("ip") or p.get("hostname") for p in points] + extra
        return ",".join(extra) or "<pending>"
    return ",".join(extra) or NONE


def _service_port(port: Obj) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}"


def _service(service: Obj, now: float) -> list[Any]:
    spec = service["spec"]
    return [
        name_of(service),
        spec.get("type") or "ClusterIP",
        spec.get("clusterIP") or NONE,
        _external(service),
        ",".join(map(_service_port, spec.get("ports") or ())) or NONE,
        age(service, now),
        selector_text({"matchLabels": spec.get("selector") or {}}) or NONE,
    ]


def _joined(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _endpoints(obj: Obj, now: float) -> list[Any]:
    shown = [
        _joined(a.get("ip", ""), p.get("port", 0))
        for s in obj.get("subsets") or ()
        for p in s.get("ports") or ()
        for a in s.get("addresses") or ()
    ]
    more = f" + {len(shown) - 3} more..." if len(shown) > 3 else ""
    return [name_of(obj), ",".join(shown[:3]) + more or NONE, age(obj, now)]


def _event(event: Obj, now: float) -> list[Any]:
    about, source = event.get("involvedObject") or {}, event.get("source") or {}
    series = event.get("series") or {}
    first = event.get("firstTimestamp") or event.get("eventTime")
    last = series.get("lastObservedTime") if series else event.get("lastTimestamp") or first
    kind = str(about.get("kind") or "").lower()
    return [
        since(last, now),
        event.get("type") or "",
        event.get("reason") or "",
        f"{kind}/{about.get('name', '')}" if about.get("name") else kind,
        about.get("fieldPath") or "",
        ", ".join(
            x for x in (source.get("component") or event.get("reportingComponent"), source.get("host")) if x
        ),
        str(event.get("message") or "").strip(),
        since(first, now),
        series.get("count", 0) if series else event.get("count") or 1,
        name_of(event),
    ]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: list[str] | None) -> str:
    return ",".join(_MODES.get(m, m) for m in modes or ())


def _phase(obj: Obj) -> str:
    status = obj.get("status") or {}
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else str(status.get("phase") or "")


def _volume(pv: Obj, now: float) -> list[Any]:
    spec = pv.get("spec") or {}
    claim = spec.get("claimRef")
    return [
        name_of(pv),
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy") or "",
        _phase(pv),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>",
        (pv.get("status") or {}).get("reason") or "",
        age(pv, now),
        spec.get("volumeMode") or "<unset>",
    ]


def _claim(pvc: Obj, now: float) -> list[Any]:
    spec, status = pvc.get("spec") or {}, pvc.get("status") or {}
    bound = bool(spec.get("volumeName"))
    return [
        name_of(pvc),
        _phase(pvc),
        spec.get("volumeName") or "",
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>",
        age(pvc, now),
        spec.get("volumeMode") or "<unset>",
    ]


def _data(obj: Obj) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


CORE = {
    "core.Pod": POD,
    "core.Node": Printer(
        columns(
            "Name Status Roles Age Version +Internal-IP +External-IP +OS-Image +Kernel-Version "
            "+Container-Runtime"
        ),
        _node,
    ),
    "core.Namespace": Printer(
        columns("Name Status Age"),
        lambda o, now: [name_of(o), (o.get("status") or {}).get("phase"), age(o, now)],
    ),
    "core.Service": Printer(columns("Name Type Cluster-IP External-IP Port(s) Age +Selector"), _service),
    "core.Endpoints": Printer(columns("Name Endpoints Age"), _endpoints),
    "core.ConfigMap": Printer(columns("Name Data Age"), lambda o, now: [name_of(o), _data(o), age(o, now)]),
    "core.Secret": Printer(
        columns("Name Type Data Age"),
        lambda o, now: [name_of(o), o.get("type") or "", _data(o), age(o, now)],
    ),
    "core.ServiceAccount": Printer(
        columns("Name Secrets:i Age"), lambda o, now: [name_of(o), len(o.get("secrets") or ()), age(o, now)]
    ),
    "core.Event": Printer(
        columns("Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name"), _event
    ),
    "events.Event": Printer(
        columns("Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +Count +Name"), _event
    ),
    "core.PersistentVolume": Printer(
        columns(
            "Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass "
            "VolumeAttributesClass Reason Age "
            "+VolumeMode"
        ),
        _volume,
    ),
    "core.PersistentVolumeClaim": Printer(
        columns(
            "Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age +VolumeMode"
        ),
        _claim,
    ),
}
