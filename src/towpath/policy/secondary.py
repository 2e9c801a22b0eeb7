"""MultiNetworkPolicy, and a cluster as one of the pods' other networks has it. Pure.

``k8s.cni.cncf.io`` v1beta1 and v1beta2: NetworkPolicy's spec, for the interfaces in the networks that the
annotation ``k8s.v1.cni.cncf.io/policy-for`` names, separated by commas, each NAME (of the policy's namespace)
or NAMESPACE/NAME. Pods as peers mean their addresses in those networks, which the annotation
``k8s.v1.cni.cncf.io/network-status`` has. So each network is a world of its own, in which pods have the
addresses that they have there and no other policies are: all that judges policy works in it unchanged.

Source: k8snetworkplumbingwg/multi-networkpolicy and its controllers for iptables and nftables.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.api.core import Pod, PodIP, PodStatus
from towpath.model.finding import Finding
from towpath.policy import convert_networking
from towpath.policy.converted import Converted

GROUP, KIND = "k8s.cni.cncf.io", "MultiNetworkPolicy"
POLICY_FOR = "k8s.v1.cni.cncf.io/policy-for"
NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
FOR_NO_NETWORK = "TP5138"


class _Entry(msgspec.Struct, frozen=True):
    name: str = ""
    interface: str = ""
    ips: tuple[str, ...] = ()
    default: bool = False


_STATUS = msgspec.json.Decoder(tuple[_Entry, ...])


def convert(raw: Mapping[str, Any]) -> Converted:
    """One object, for whichever network it is: NetworkPolicy's rules, and the same failing closed.

    Never raises.
    """
    found = convert_networking.convert(raw, KIND)
    findings = found.findings
    named, strange = networks_of(raw)
    policy = found.policies[0]
    if strange or not named:
        findings += (_for_no_network(str(policy), strange),)
    return replace(found, findings=findings)


def networks_of(raw: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """NAMESPACE/NAME of the networks a policy is for, and what of its annotation is no network's name."""
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    annotations = metadata.get("annotations")
    text = annotations.get(POLICY_FOR) if isinstance(annotations, Mapping) else None
    named: dict[str, None] = {}
    strange: list[str] = []
    for entry in text.split(",") if isinstance(text, str) else ():
        parts = [part.strip() for part in entry.split("/")]
        if len(parts) == 1:
            parts.insert(0, str(metadata.get("namespace") or ""))
        if len(parts) == 2 and all(parts):
            named["/".join(parts)] = None
        elif entry.strip():
            strange.append(entry.strip())
    return tuple(named), tuple(strange)


def addresses_in(annotations: Mapping[str, str] | None, namespace: str) -> dict[str, tuple[str, ...]]:
    """A pod's addresses by network, NAMESPACE/NAME, as its annotation network-status has them.

    The pod network is none of these, unless a definition took its place. What cannot be read says nothing.
    """
    text = (annotations or {}).get(NETWORK_STATUS, "")
    if not text:
        return {}
    try:
        entries = _STATUS.decode(text)
    except (msgspec.MsgspecError, ValueError):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if not entry.name or (entry.default and "/" not in entry.name):
            continue
        name = entry.name if "/" in entry.name else f"{namespace}/{entry.name}"
        found[name] = (*found.get(name, ()), *entry.ips)
    return found


def with_addresses(pod: Pod, addresses: tuple[str, ...]) -> Pod:
    """The pod with other addresses."""
    first = addresses[0] if addresses else ""
    return Pod(
        pod.metadata,
        pod.spec,
        PodStatus(pod.status.phase, pod_ip=first, pod_ips=[PodIP(ip) for ip in addresses]),
    )


def raw_in_network(raw: Mapping[str, Any], network: str) -> Mapping[str, Any] | None:
    """A pod, as decoded, with the addresses it has in a network; None if it is not known to be in it."""
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    annotations = metadata.get("annotations")
    if not isinstance(annotations, Mapping) or not isinstance(annotations.get(NETWORK_STATUS), str):
        return None
    found = addresses_in(annotations, str(metadata.get("namespace") or "")).get(network)
    if found is None:
        return None
    status = raw.get("status")
    there = {"podIP": found[0] if found else "", "podIPs": [{"ip": ip} for ip in found]}
    return {**raw, "status": {**(status if isinstance(status, Mapping) else {}), **there}}


def _for_no_network(name: str, strange: tuple[str, ...]) -> Finding:
    what = f"names {', '.join(map(repr, strange))}" if strange else "names no network"
    return Finding(
        code=FOR_NO_NETWORK,
        object=name,
        message=f"its annotation {POLICY_FOR} {what}; it is in force for no such network",
        fix="name NetworkAttachmentDefinitions, NAME or NAMESPACE/NAME, with commas between them",
    )
