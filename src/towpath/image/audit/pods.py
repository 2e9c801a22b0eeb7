"""The pod's side: what a manifest gives the containers that run an image."""

from collections.abc import Iterator
from typing import Any

from towpath.image.audit.rules import Found

_TEMPLATED = ("DaemonSet", "Deployment", "StatefulSet", "ReplicaSet", "Job", "ReplicationController")
_CONTAINER_TYPES = ("container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_MOST_RESTRICTED = "NET_BIND_SERVICE"


def check_manifest(objects: list[Any], digest: str = "") -> Iterator[Found]:
    """Findings of every pod in ``objects``; with ``digest``, an audited image's, whether they pin it."""
    for thing in objects:
        if isinstance(thing, dict) and str(thing.get("kind", "")).endswith("List"):
            yield from check_manifest(list(thing.get("items") or ()), digest)
        elif spec := _pod(thing):
            name = f"{thing.get('kind')}/{(thing.get('metadata') or {}).get('name', '?')}"
            yield from _check_pod(spec, name, digest)


def _pod(thing: Any) -> dict[str, Any] | None:
    if not isinstance(thing, dict):
        return None
    spec = thing.get("spec") or {}
    if thing.get("kind") == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    if thing.get("kind") in (*_TEMPLATED, "CronJob"):
        return (spec.get("template") or {}).get("spec") or {}
    return spec if thing.get("kind") == "Pod" else None


def _check_pod(spec: dict[str, Any], name: str, digest: str) -> Iterator[Found]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield Found(code="TP8209", path=f"{name} {field}", message="shares the node's namespace")
    for volume in spec.get("volumes") or ():
        if path := (volume.get("hostPath") or {}).get("path"):
            yield Found(
                code="TP8208", path=f"{name} volume {volume.get('name')}", message=f"is {path} of the node"
            )
    if spec.get("automountServiceAccountToken") is not False and not spec.get("serviceAccountName"):
        yield Found(
            code="TP8211",
            path=f"{name} automountServiceAccountToken",
            message="the default account's token is mounted",
        )
    inherited = spec.get("securityContext") or {}
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            yield from _check_container(container, inherited, f"{name} {container.get('name')}", digest)


def _check_container(
    container: dict[str, Any], inherited: dict[str, Any], name: str, digest: str
) -> Iterator[Found]:
    own = container.get("securityContext") or {}
    if own.get("privileged"):
        yield Found(code="TP8201", path=f"{name} privileged", message="has every right on the node")
    yield from _capabilities(own.get("capabilities") or {}, name)
    if own.get("allowPrivilegeEscalation") is not False:
        yield Found(code="TP8204", path=f"{name} allowPrivilegeEscalation", message="is not false")
    user = own.get("runAsUser", inherited.get("runAsUser"))
    sure = own.get("runAsNonRoot", inherited.get("runAsNonRoot"))
    if user == 0 or (user is None and not sure):
        what = "runs as root" if user == 0 else "may run as root: neither runAsNonRoot nor a runAsUser"
        yield Found(code="TP8205", path=f"{name} runAsUser", message=what)
    if not own.get("readOnlyRootFilesystem"):
        yield Found(code="TP8206", path=f"{name} readOnlyRootFilesystem", message="is not true")
    seccomp = own.get("seccompProfile") or inherited.get("seccompProfile") or {}
    if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
        yield Found(
            code="TP8207", path=f"{name} seccompProfile", message=f"is {seccomp.get('type') or 'not set'}"
        )
    yield from _loosened(own, inherited, name)
    limits = (container.get("resources") or {}).get("limits") or {}
    if missing := [r for r in ("cpu", "memory") if r not in limits]:
        yield Found(
            code="TP8210", path=f"{name} resources.limits", message=f"no limit of {' and '.join(missing)}"
        )
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield Found(
                code="TP8209", path=f"{name} hostPort {port['hostPort']}", message="is a port of the node"
            )
    yield from _image(str(container.get("image") or ""), name, digest)


def _loosened(own: dict[str, Any], inherited: dict[str, Any], name: str) -> Iterator[Found]:
    armor = own.get("appArmorProfile") or inherited.get("appArmorProfile") or {}
    if armor.get("type") == "Unconfined":
        yield Found(code="TP8214", path=f"{name} appArmorProfile", message="is Unconfined")
    if own.get("procMount") == "Unmasked":
        yield Found(code="TP8214", path=f"{name} procMount", message="shows all of /proc")
    kind = (own.get("seLinuxOptions") or inherited.get("seLinuxOptions") or {}).get("type")
    if kind and kind not in _CONTAINER_TYPES:
        yield Found(code="TP8214", path=f"{name} seLinuxOptions", message=f"is of type {kind}")


def _capabilities(given: dict[str, Any], name: str) -> Iterator[Found]:
    if "ALL" not in [str(c).upper() for c in given.get("drop") or ()]:
        yield Found(code="TP8203", path=f"{name} capabilities.drop", message="does not drop ALL")
    extra = [str(c).upper().removeprefix("CAP_") for c in given.get("add") or ()]
    if extra := [c for c in extra if c != _MOST_RESTRICTED]:
        yield Found(code="TP8202", path=f"{name} capabilities.add", message=f"adds {', '.join(extra)}")


def _image(image: str, name: str, digest: str) -> Iterator[Found]:
    reference, at, pinned = image.partition("@")
    if not at:
        tag = reference.rpartition("/")[2].partition(":")[2] or "latest"
        yield Found(code="TP8212", path=f"{name} image", message=f"{image} is a name that can move ({tag})")
    elif digest and pinned != digest:
        yield Found(code="TP8213", path=f"{name} image", message=f"pins {pinned}, audited was {digest}")
