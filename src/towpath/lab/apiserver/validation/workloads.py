"""Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs, CronJobs."""

from typing import Any

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.selectors import matches_selector
from towpath.lab.apiserver.validation.field import (
    IMMUTABLE,
    immutable,
    not_allowed,
    required,
    unsupported,
    wrong,
)
from towpath.lab.apiserver.validation.metadata import label_causes
from towpath.lab.apiserver.validation.pods import pod_spec_causes
from towpath.lab.apiserver.validation.selectors import selector_causes

_STATEFUL_MUTABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_STATEFUL_TEXT = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def count_causes(spec: Obj, field: str, *keys: str) -> list[Cause]:
    """Numbers that may not be negative."""
    return [
        wrong(f"{field}.{k}", spec[k], "must be greater than or equal to 0")
        for k in keys
        if isinstance(spec.get(k), int) and spec[k] < 0
    ]


def _template(spec: Obj, kind: str, policies: list[str]) -> list[Cause]:
    selector, template = spec.get("selector"), spec.get("template") or {}
    causes: list[Cause] = []
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += selector_causes(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            causes.append(wrong("spec.selector", selector, f"empty selector is invalid for {kind}"))
        elif not matches_selector(selector, labels):
            text = "`selector` does not match template `labels`"
            causes.append(wrong("spec.template.metadata.labels", labels, text))
    causes += label_causes(labels, "spec.template.metadata.labels")
    pod = template.get("spec") or {}
    causes += pod_spec_causes(pod, "spec.template.spec")
    if pod.get("restartPolicy") not in policies:
        causes.append(unsupported("spec.template.spec.restartPolicy", pod.get("restartPolicy"), policies))
    return causes


def _amount(field: str, value: Any) -> list[Cause]:
    if isinstance(value, int) and value >= 0:
        return []
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdigit():
        return []
    if isinstance(value, int):
        return [wrong(field, value, "must be greater than or equal to 0")]
    text = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%')"
    return [wrong(field, value, text)]


def _rolling(spec: Obj, key: str, allowed: list[str], fields: tuple[str, ...]) -> list[Cause]:
    strategy = spec.get(key) or {}
    if strategy.get("type") not in allowed:
        return [unsupported(f"spec.{key}.type", strategy.get("type"), allowed)]
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] != "RollingUpdate":
        if rolling:
            why = f"may not be specified when strategy `type` is '{strategy['type']}'"
            return [not_allowed(f"spec.{key}.rollingUpdate", why)]
        return []
    rolling = rolling or {}
    causes = [c for f in fields if f in rolling for c in _amount(f"spec.{key}.rollingUpdate.{f}", rolling[f])]
    if len(fields) == 2 and not causes and all(rolling.get(f) in (0, "0%") for f in fields):
        why = "may not be 0 when `maxSurge` is 0"
        causes.append(wrong(f"spec.{key}.rollingUpdate.maxUnavailable", rolling[fields[0]], why))
    return causes


def _selector_kept(obj: Obj, old: Obj | None) -> list[Cause]:
    if old is None:
        return []
    return immutable("spec.selector", obj["spec"].get("selector"), old["spec"].get("selector"), IMMUTABLE)


def deployment_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Deployment."""
    spec = obj["spec"]
    causes = count_causes(
        spec, "spec", "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"
    )
    causes += _template(spec, "deployment", ["Always"])
    fields = ("maxUnavailable", "maxSurge")
    causes += _rolling(spec, "strategy", ["Recreate", "RollingUpdate"], fields)
    return causes + _selector_kept(obj, old)


def replica_set_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """ReplicaSet."""
    causes = count_causes(obj["spec"], "spec", "replicas", "minReadySeconds")
    return causes + _template(obj["spec"], "replicaset", ["Always"]) + _selector_kept(obj, old)


def daemon_set_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """DaemonSet."""
    spec = obj["spec"]
    causes = count_causes(spec, "spec", "minReadySeconds", "revisionHistoryLimit")
    causes += _template(spec, "daemonset", ["Always"])
    causes += _rolling(spec, "updateStrategy", ["OnDelete", "RollingUpdate"], ("maxUnavailable", "maxSurge"))
    return causes + _selector_kept(obj, old)


def stateful_set_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """StatefulSet."""
    spec = obj["spec"]
    causes = count_causes(spec, "spec", "replicas", "minReadySeconds", "revisionHistoryLimit")
    causes += _template(spec, "statefulset", ["Always"])
    causes += _rolling(spec, "updateStrategy", ["OnDelete", "RollingUpdate"], ("maxUnavailable",))
    if old is not None:
        kept = [{k: v for k, v in s.items() if k not in _STATEFUL_MUTABLE} for s in (spec, old["spec"])]
        if kept[0] != kept[1]:
            causes.append(not_allowed("spec", _STATEFUL_TEXT))
    return causes


def job_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Job."""
    spec = obj["spec"]
    causes = count_causes(spec, "spec", "completions", "parallelism", "backoffLimit")
    causes += _template(spec, "job", ["OnFailure", "Never"])
    if old is not None:
        causes += _selector_kept(obj, old)
        for key in ("completions", "template"):
            causes += immutable(f"spec.{key}", spec.get(key), old["spec"].get(key))
    return causes


def cron_job_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """CronJob."""
    spec = obj["spec"]
    schedule = spec.get("schedule") or ""
    causes: list[Cause] = []
    if not schedule:
        causes.append(required("spec.schedule"))
    elif not schedule.startswith("@") and len(schedule.split()) != 5:
        why = f"expected exactly 5 fields, found {len(schedule.split())}: [{schedule}]"
        causes.append(wrong("spec.schedule", schedule, why))
    pod = (((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}).get("spec") or {}
    at = "spec.jobTemplate.spec.template.spec"
    causes += pod_spec_causes(pod, at)
    if pod.get("restartPolicy") not in ("OnFailure", "Never"):
        causes.append(unsupported(f"{at}.restartPolicy", pod.get("restartPolicy"), ["OnFailure", "Never"]))
    return causes
