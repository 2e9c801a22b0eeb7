"""Pods as far as the network is concerned: where they run, what selects them, what they listen on."""

from typing import Any

import msgspec

Raw = dict[str, Any]

NETWORKS = "k8s.v1.cni.cncf.io/networks"


class PodState(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """``ports``: number, protocol, name. ``networks``: the annotation that asks for further interfaces."""

    namespace: str
    name: str
    node: str
    labels: dict[str, str] = {}
    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[int, str, str], ...] = ()
    networks: str = ""


def holds_addresses(raw: Raw) -> bool:
    """Whether a ``v1`` Pod has, or will have, addresses of its own: not host-networked, not finished."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    return not spec.get("hostNetwork") and status.get("phase") not in ("Succeeded", "Failed")


def pod_state(raw: Raw) -> PodState:
    """Of a ``v1`` Pod."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    ports = (port for one in spec.get("containers") or () for port in one.get("ports") or ())
    return PodState(
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        node=spec.get("nodeName", ""),
        labels=meta.get("labels") or {},
        addresses=tuple(one["ip"] for one in status.get("podIPs") or () if one.get("ip")),
        ports=tuple((p["containerPort"], p.get("protocol", "TCP"), p.get("name", "")) for p in ports),
        networks=(meta.get("annotations") or {}).get(NETWORKS, ""),
    )
