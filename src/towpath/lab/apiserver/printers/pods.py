"""Cells of Pods, as k8s.io/kubernetes/pkg/printers/internalversion prints them."""

from typing import Any

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.printers.table import Printer, age, columns, since

NONE = "<none>"


def _state(status: Obj) -> tuple[Obj, bool, Obj]:
    """Waiting, whether it runs, terminated."""
    state = status.get("state") or {}
    return state.get("waiting") or {}, state.get("running") is not None, state.get("terminated") or {}


def _ended(terminated: Obj) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _init_reason(pod: Obj) -> str:
    """``Init:…`` while an init container keeps the pod from starting, else ""."""
    inits = (pod.get("status") or {}).get("initContainerStatuses") or []
    sidecars = {
        c["name"] for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"
    }
    for i, status in enumerate(inits):
        waiting, _, terminated = _state(status)
        if terminated and not terminated.get("exitCode"):
            continue
        if status.get("name") in sidecars and status.get("started"):
            continue
        if terminated:
            return f"Init:{_ended(terminated)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{i}/{len(pod['spec'].get('initContainers') or ())}"
    return ""


def condition(obj: Obj, kind: str) -> Obj:
    """The status condition of a type; {} where there is none."""
    found = (obj.get("status") or {}).get("conditions") or ()
    return next((c for c in found if c.get("type") == kind), {})


def _container_reason(pod: Obj, reason: str) -> str:
    running = False
    for status in reversed((pod.get("status") or {}).get("containerStatuses") or []):
        waiting, started, terminated = _state(status)
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated:
            reason = _ended(terminated)
        elif started and status.get("ready"):
            running = True
    if reason == "Completed" and running:
        reason = "Running" if condition(pod, "Ready").get("status") == "True" else "NotReady"
    return reason


def pod_status(pod: Obj) -> str:
    """The STATUS column."""
    status = pod.get("status") or {}
    phase = status.get("phase") or "Unknown"
    reason = status.get("reason") or phase
    if condition(pod, "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    reason = _init_reason(pod) or _container_reason(pod, reason)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if phase not in ("Succeeded", "Failed"):
            return "Terminating"
    return str(reason)


def _restarts(pod: Obj, now: float) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    count = sum(s.get("restartCount") or 0 for s in statuses)
    ended = [((s.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    last = max((e for e in ended if e), default=None)
    return f"{count} ({since(last, now)} ago)" if count and last else str(count)


def pod_cells(pod: Obj, now: float) -> list[Any]:
    """A row."""
    spec, status = pod["spec"], pod.get("status") or {}
    statuses = status.get("containerStatuses") or []
    ready = sum(bool(s.get("ready") and _state(s)[1]) for s in statuses)
    gates = spec.get("readinessGates") or []
    passed = sum(condition(pod, g.get("conditionType", "")).get("status") == "True" for g in gates)
    return [
        pod["metadata"]["name"],
        f"{ready}/{len(spec.get('containers') or ())}",
        pod_status(pod),
        _restarts(pod, now),
        age(pod, now),
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{passed}/{len(gates)}" if gates else NONE,
    ]


POD = Printer(columns("Name Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates"), pod_cells)
