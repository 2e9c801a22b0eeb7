"""Whose pod is it: the Kubernetes identity behind a CNI call."""

from typing import Protocol

from towpath.api.core import Pod
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.model.attachment import PodRef

# The kubelet's own pods (static ones) are known to the runtime by the hash of their file; the API server
# gives their mirror a UID of its own and keeps the hash in an annotation.
_STATIC_HASH = "kubernetes.io/config.hash"


class PodLookupFailed(Exception):
    """The API server did not answer, and the pod is not in the cache."""


class PodDirectory(Protocol):
    """Pods by name: from the reflector's cache, else by one GET."""

    async def find(self, namespace: str, name: str) -> Pod | None:
        """None where the API server says there is no such pod. Raises PodLookupFailed."""
        ...


async def look_up(r: Request, pods: PodDirectory) -> Pod | None:
    """The pod a call names, asked for once a call; None where it names none, or there is none.

    Raises PodLookupFailed.
    """
    namespace, name = r.args.get("K8S_POD_NAMESPACE", ""), r.args.get("K8S_POD_NAME", "")
    if r.pod is None and namespace and name:
        r.pod = await pods.find(namespace, name)
    return r.pod


async def identify(r: Request, pods: PodDirectory | None) -> PodRef | None:
    """The pod ``r`` is about; None outside Kubernetes: without an API, or a namespace (podman names none).

    Raises CniError TRY_LATER for a pod that is unknown, is another one of the same name by now, or cannot be
    looked up; BAD_ENVIRONMENT for half an identity.
    """
    namespace, name, uid = (r.args.get(f"K8S_POD_{key}", "") for key in ("NAMESPACE", "NAME", "UID"))
    if pods is None or not namespace:
        return None
    if not name:
        raise CniError(ErrorCode.BAD_ENVIRONMENT, "CNI_ARGS: K8S_POD_NAMESPACE without K8S_POD_NAME")
    try:
        pod = await look_up(r, pods)
    except PodLookupFailed as error:
        raise CniError(
            ErrorCode.TRY_LATER,
            f"pod {namespace}/{name} cannot be looked up",
            f"its labels decide which policy applies, and the API server does not answer: {error}; TP2001",
        ) from error
    if pod is None:
        raise CniError(
            ErrorCode.TRY_LATER,
            f"pod {namespace}/{name} is unknown to the API server",
            "deleted meanwhile, or a static pod whose mirror is not there yet; TP2001",
        )
    known = {pod.metadata.uid, (pod.metadata.annotations or {}).get(_STATIC_HASH, "")}
    if uid and pod.metadata.uid and uid not in known:
        raise CniError(
            ErrorCode.TRY_LATER,
            f"pod {namespace}/{name} is not the one the runtime means",
            f"the runtime says UID {uid}, the API server {pod.metadata.uid}",
        )
    return PodRef(namespace=namespace, name=name, uid=pod.metadata.uid or uid)


async def why_over(ref: PodRef, pods: PodDirectory | None) -> str:
    """Why a pod will never need its address again, by the API server; empty if it may, or nobody knows."""
    if pods is None:
        return ""
    try:
        pod = await pods.find(ref.namespace, ref.name)
    except PodLookupFailed:
        return ""
    if pod is None:
        return f"pod {ref.namespace}/{ref.name} is gone"
    if pod.status.phase in ("Succeeded", "Failed"):
        return f"pod {ref.namespace}/{ref.name} has finished"
    if ref.uid and pod.metadata.uid and ref.uid != pod.metadata.uid:
        return f"pod {ref.namespace}/{ref.name} is another one by now"
    return ""
