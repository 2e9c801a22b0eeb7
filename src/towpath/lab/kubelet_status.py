"""A pod's status from what its worker knows. Pure: the wording and the rules are the kubelet's own."""

import datetime
import hashlib
from typing import Any

import msgspec

from towpath.lab.kubelet_spec import Container, Pod

CRI = "towpath-lab://"


class ContainerState(msgspec.Struct, kw_only=True):
    """One container of a pod, as its worker sees it. Times are seconds since 1970, 0 for never.

    ``id`` of the present (or last) process; ``ready`` and ``started`` from probes; ``waiting`` the reason
    while it does not run; ``last`` what the process before the present one ended with.
    """

    name: str
    id: str = ""
    running: bool = False
    began: float = 0.0
    ended: float = 0.0
    exit_code: int = 0
    restarts: int = 0
    ready: bool = False
    started: bool = False
    waiting: str = "ContainerCreating"
    message: str = ""
    last: dict[str, Any] | None = None

    def terminated(self) -> dict[str, Any]:
        """``state.terminated`` of a process that has ended."""
        return {
            "containerID": CRI + self.id,
            "exitCode": self.exit_code,
            "reason": "Completed" if self.exit_code == 0 else "Error",
            "startedAt": rfc3339(self.began),
            "finishedAt": rfc3339(self.ended),
        }


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a status is made of, besides the pod itself."""

    host_ips: list[str]
    pod_ips: list[str]
    containers: dict[str, ContainerState]
    inits: dict[str, ContainerState]
    sandbox: bool
    reason: str = ""


def rfc3339(seconds: float) -> str:
    """``metav1.Time``."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def image_id(image: str) -> str:
    """A digest reference for an image name: the lab has no images, so the digest is that of the name."""
    repository = image.rsplit("@", 1)[0]
    if ":" in repository.rsplit("/", 1)[-1]:
        repository = repository.rsplit(":", 1)[0]
    return f"{full_name(repository)}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def full_name(image: str) -> str:
    """The image's name as containerd lists it: with registry and, for official ones, library."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def tagged_name(image: str) -> str:
    """The full name with its tag."""
    name = full_name(image)
    return name if "@" in name or ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def phase(pod: Pod, state: PodState) -> str:
    """The pod's phase (kubelet's getPhase)."""
    policy = pod.spec.restart_policy
    main = [state.containers[c.name] for c in pod.spec.containers]
    failed_init = any(
        not s.running and s.ended and s.exit_code and policy == "Never" for s in state.inits.values()
    )
    if failed_init:
        return "Failed"
    if any(not _done(s) for s in state.inits.values()):
        return "Pending"
    if any(not s.id for s in main):
        return "Pending"
    if any(s.running for s in main) or policy == "Always":
        return "Running"
    if all(s.exit_code == 0 for s in main):
        return "Succeeded"
    return "Running" if policy == "OnFailure" else "Failed"


def status(pod: Pod, state: PodState, now: float) -> dict[str, Any]:
    """The whole ``status`` object; transition times of unchanged conditions are kept."""
    computed = phase(pod, state)
    finished = computed in ("Succeeded", "Failed")
    ready = not finished and all(state.containers[c.name].ready for c in pod.spec.containers)
    initialized = all(_done(s) for s in state.inits.values())
    truths = {
        "PodReadyToStartContainers": (state.sandbox, ""),
        "Initialized": (initialized, "ContainersNotInitialized"),
        "Ready": (ready, "PodCompleted" if finished else "ContainersNotReady"),
        "ContainersReady": (ready, "PodCompleted" if finished else "ContainersNotReady"),
    }
    result: dict[str, Any] = {
        "phase": computed,
        "conditions": _conditions(pod, truths, now),
        "hostIP": state.host_ips[0],
        "hostIPs": [{"ip": ip} for ip in state.host_ips],
        "podIP": state.pod_ips[0] if state.pod_ips else None,
        "podIPs": [{"ip": ip} for ip in state.pod_ips] or None,
        "startTime": pod.status.start_time or rfc3339(now),
        "qosClass": "BestEffort",
        "containerStatuses": [_container(c, state.containers[c.name]) for c in pod.spec.containers],
    }
    if state.inits:
        result["initContainerStatuses"] = [_container(c, state.inits[c.name]) for c in pod.init_containers]
    if state.reason:
        result["reason"] = state.reason
    return result


def _done(state: ContainerState) -> bool:
    return not state.running and state.ended > 0 and state.exit_code == 0


def _conditions(pod: Pod, truths: dict[str, tuple[bool, str]], now: float) -> list[dict[str, Any]]:
    before = {c.get("type"): c for c in pod.status.conditions or []}
    result = []
    for kind, (truth, reason) in truths.items():
        entry: dict[str, Any] = {"type": kind, "status": "True" if truth else "False"}
        if not truth and reason:
            entry["reason"] = reason
        same = before.get(kind, {}).get("status") == entry["status"]
        entry["lastProbeTime"] = None
        entry["lastTransitionTime"] = before[kind].get("lastTransitionTime") if same else rfc3339(now)
        result.append(entry)
    # Others' conditions (PodScheduled, readiness gates) stay as they are.
    return result + [c for kind, c in before.items() if kind not in truths]


def _container(spec: Container, state: ContainerState) -> dict[str, Any]:
    image = spec.image
    result: dict[str, Any] = {
        "name": spec.name,
        "image": tagged_name(image) if image else "",
        "imageID": image_id(image) if image else "",
        "ready": state.ready,
        "started": state.started,
        "restartCount": state.restarts,
        "lastState": {"terminated": state.last} if state.last else {},
    }
    if state.id:
        result["containerID"] = CRI + state.id
    if state.running:
        result["state"] = {"running": {"startedAt": rfc3339(state.began)}}
    elif state.waiting:
        waiting = {"reason": state.waiting, **({"message": state.message} if state.message else {})}
        result["state"] = {"waiting": waiting}
    else:
        result["state"] = {"terminated": state.terminated()}
    return result
