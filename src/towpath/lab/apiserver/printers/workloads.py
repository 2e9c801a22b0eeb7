"""Cells of apps/v1 and batch/v1."""

from typing import Any

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.printers.core import name_of
from towpath.lab.apiserver.printers.pods import NONE, condition
from towpath.lab.apiserver.printers.selector_text import selector_text
from towpath.lab.apiserver.printers.table import Printer, age, between, columns, since

WIDE = "+Containers +Images +Selector"


def containers(spec: Obj, selector: bool = True) -> list[str]:
    """The wide columns: containers, images and the selector."""
    found = ((spec.get("template") or {}).get("spec") or {}).get("containers") or []
    cells = [",".join(c.get("name", "") for c in found), ",".join(c.get("image", "") for c in found)]
    return [*cells, selector_text(spec.get("selector")) or NONE] if selector else cells


def _deployment(obj: Obj, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    ready = f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 1)}"
    updated, available = status.get("updatedReplicas") or 0, status.get("availableReplicas") or 0
    return [name_of(obj), ready, updated, available, age(obj, now), *containers(spec)]


def _replica_set(obj: Obj, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    counts = [spec.get("replicas", 1), status.get("replicas") or 0, status.get("readyReplicas") or 0]
    return [name_of(obj), *counts, age(obj, now), *containers(spec)]


def _daemon_set(obj: Obj, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    keys = (
        "desiredNumberScheduled", "currentNumberScheduled", "numberReady",
        "updatedNumberScheduled", "numberAvailable",
    )  # fmt: skip
    nodes = ((spec.get("template") or {}).get("spec") or {}).get("nodeSelector") or {}
    chosen = selector_text({"matchLabels": nodes}) or NONE
    return [name_of(obj), *(status.get(k) or 0 for k in keys), chosen, age(obj, now), *containers(spec)]


def _stateful_set(obj: Obj, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    ready = f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 1)}"
    return [name_of(obj), ready, age(obj, now), *containers(spec, False)]


def _revision(obj: Obj, now: float) -> list[Any]:
    owner = next((r for r in obj["metadata"].get("ownerReferences") or () if r.get("controller")), None)
    kind = (
        f"{owner['kind'].lower()}.{owner['apiVersion'].partition('/')[0]}/{owner['name']}" if owner else NONE
    )
    return [name_of(obj), kind, obj.get("revision", 0), age(obj, now)]


def _job(obj: Obj, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    done, start, end = status.get("succeeded") or 0, status.get("startTime"), status.get("completionTime")
    state = "Running"
    for kind in ("Complete", "Failed", "Suspended"):
        if condition(obj, kind).get("status") == "True":
            state = kind
    took = ""
    if start:
        took = between(start, end, now)
    if "completions" in spec:
        completions = f"{done}/{spec['completions']}"
    else:
        completions = f"{done}/1 of {spec['parallelism']}" if spec.get("parallelism", 1) > 1 else f"{done}/1"
    return [name_of(obj), state, completions, took, age(obj, now), *containers(spec)]


def _cron_job(obj: Obj, now: float) -> list[Any]:
    spec, status = obj["spec"], obj.get("status") or {}
    last = status.get("lastScheduleTime")
    return [
        name_of(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        str(bool(spec.get("suspend"))),
        len(status.get("active") or ()),
        since(last, now) if last else NONE,
        age(obj, now),
        *containers((spec.get("jobTemplate") or {}).get("spec") or {}),
    ]


WORKLOADS = {
    "apps.Deployment": Printer(columns(f"Name Ready Up-to-date Available Age {WIDE}"), _deployment),
    "apps.ReplicaSet": Printer(columns(f"Name Desired:i Current:i Ready:i Age {WIDE}"), _replica_set),
    "apps.DaemonSet": Printer(
        columns(f"Name Desired:i Current:i Ready:i Up-to-date:i Available:i Node_Selector Age {WIDE}"),
        _daemon_set,
    ),
    "apps.StatefulSet": Printer(columns("Name Ready Age +Containers +Images"), _stateful_set),
    "apps.ControllerRevision": Printer(columns("Name Controller Revision:i Age"), _revision),
    "batch.Job": Printer(columns(f"Name Status Completions Duration Age {WIDE}"), _job),
    "batch.CronJob": Printer(
        columns(f"Name Schedule Timezone Suspend Active:i Last_Schedule Age {WIDE}"), _cron_job
    ),
}
