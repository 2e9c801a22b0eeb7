"""The two conversions there are: Events between their two API groups, custom resources between versions."""

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.resources import Resource

# events.k8s.io/v1 field: core/v1 field (k8s.io/kubernetes/pkg/apis/events/v1 conversion)
_EVENT = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_CORE = {v: k for k, v in _EVENT.items()}


def converted(resource: Resource, obj: Obj) -> Obj:
    """The stored object under the resource's API version; shares what does not differ."""
    if obj.get("apiVersion") == resource.api_version:
        return obj
    names = _CORE if resource.group == "events.k8s.io" else {}
    return {names.get(k, k): v for k, v in obj.items()} | {"apiVersion": resource.api_version}


def stored_form(resource: Resource, obj: Obj) -> Obj:
    """The form in which an object is stored: Events as core/v1, all else as it came."""
    if resource.group != "events.k8s.io":
        return obj
    return {_EVENT.get(k, k): v for k, v in obj.items()} | {"apiVersion": "v1"}
