"""Services, EndpointSlices, NetworkPolicies."""

from ipaddress import ip_address, ip_network
from typing import Any

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.containers import PROTOCOLS, port_causes
from towpath.lab.apiserver.validation.field import (
    duplicate,
    immutable,
    not_allowed,
    required,
    unsupported,
    wrong,
)
from towpath.lab.apiserver.validation.metadata import label_causes
from towpath.lab.apiserver.validation.selectors import selector_causes

_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]


def _service_port(port: Obj, at: str, several: bool, kind: str) -> list[Cause]:
    causes = port_causes(f"{at}.port", port.get("port"))
    if port.get("protocol") not in PROTOCOLS:
        causes.append(unsupported(f"{at}.protocol", port.get("protocol"), PROTOCOLS))
    if several and not port.get("name"):
        causes.append(required(f"{at}.name"))
    if port.get("name"):
        causes += [wrong(f"{at}.name", port["name"], why) for why in names.label_1123(port["name"])]
    target = port.get("targetPort")
    if isinstance(target, int):
        causes += port_causes(f"{at}.targetPort", target)
    if port.get("nodePort") and kind == "ClusterIP":
        causes.append(not_allowed(f"{at}.nodePort", "may not be used when `type` is 'ClusterIP'"))
    return causes


def service_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Service."""
    spec = obj["spec"]
    kind, ports = spec.get("type"), spec.get("ports") or []
    causes: list[Cause] = []
    if kind not in _TYPES:
        causes.append(unsupported("spec.type", kind, _TYPES))
    if kind == "ExternalName":
        name = (spec.get("externalName") or "").rstrip(".")
        causes += (
            [wrong("spec.externalName", name, w) for w in names.subdomain(name)]
            if name
            else [required("spec.externalName")]
        )
    elif not ports and spec.get("clusterIP") != "None":
        causes.append(required("spec.ports"))
    seen: list[Any] = []
    for i, port in enumerate(ports):
        causes += _service_port(port, f"spec.ports[{i}]", len(ports) > 1, str(kind))
        for ident in ((port.get("name") or None), (port.get("protocol"), port.get("port"))):
            if ident is not None and ident in seen:
                causes.append(duplicate(f"spec.ports[{i}]", port if isinstance(ident, tuple) else ident))
            seen.append(ident)
    if spec.get("sessionAffinity") not in ("None", "ClientIP"):
        causes.append(unsupported("spec.sessionAffinity", spec.get("sessionAffinity"), ["ClientIP", "None"]))
    causes += label_causes(spec.get("selector"), "spec.selector")
    return causes + (_address_kept(spec, old["spec"]) if old else [])


def _address_kept(spec: Obj, old: Obj) -> list[Cause]:
    if "ExternalName" in (spec.get("type"), old.get("type")) or not old.get("clusterIP"):
        return []
    new, causes = spec.get("clusterIPs") or [], []
    if spec.get("clusterIP") != old["clusterIP"]:
        causes.append(wrong("spec.clusterIPs[0]", new, "may not change once set"))
    if len(new) < len(old.get("clusterIPs") or ()) and spec.get("ipFamilyPolicy") != "SingleStack":
        why = "`ipFamilyPolicy` must be set to 'SingleStack' when releasing the secondary clusterIP"
        causes.append(wrong("spec.clusterIPs[0]", new, why))
    return causes


def endpoint_slice_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """EndpointSlice."""
    kind = obj.get("addressType")
    if kind not in ("IPv4", "IPv6", "FQDN"):
        return [unsupported("addressType", kind or "", ["FQDN", "IPv4", "IPv6"])]
    causes = immutable("addressType", kind, old.get("addressType")) if old else []
    for i, endpoint in enumerate(obj.get("endpoints") or ()):
        addresses = endpoint.get("addresses") or []
        if not addresses:
            causes.append(required(f"endpoints[{i}].addresses", "must contain at least 1 address"))
        for j, text in enumerate(addresses):
            if kind != "FQDN" and not _is_address(text, int(kind[3:])):
                causes.append(wrong(f"endpoints[{i}].addresses[{j}]", text, f"must be an {kind} address"))
    return causes


def endpoints_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Endpoints."""
    causes: list[Cause] = []
    for i, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{i}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(key) or ()):
                ip = address.get("ip") or ""
                if not _is_address(ip, 4) and not _is_address(ip, 6):
                    text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                    causes.append(wrong(f"{at}.{key}[{j}].ip", ip, text))
        for j, port in enumerate(subset.get("ports") or ()):
            causes += port_causes(f"{at}.ports[{j}].port", port.get("port"))
    return causes


def _is_address(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def _network(text: Any, field: str) -> list[Cause]:
    try:
        ip_network(str(text), strict=False)
    except ValueError:
        return [wrong(field, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    return (
        []
        if "/" in str(text)
        else [wrong(field, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    )


def _peer(peer: Obj, at: str) -> list[Cause]:
    block = peer.get("ipBlock")
    causes = [
        c for k in ("podSelector", "namespaceSelector") for c in selector_causes(peer.get(k), f"{at}.{k}")
    ]
    if not peer:
        return [required(at, "must specify a peer")]
    if block is None:
        return causes
    if len(peer) > 1:
        causes.append(not_allowed(at, "may not specify both ipBlock and another peer"))
    causes += (
        _network(block.get("cidr"), f"{at}.ipBlock.cidr")
        if block.get("cidr")
        else [required(f"{at}.ipBlock.cidr")]
    )
    for i, text in enumerate(block.get("except") or ()):
        found = _network(text, f"{at}.ipBlock.except[{i}]")
        if not found and not causes and not _inside(text, block["cidr"]):
            found = [wrong(f"{at}.ipBlock.except[{i}]", text, "must be a strict subset of `cidr`")]
        causes += found
    return causes


def _inside(inner: str, outer: str) -> bool:
    a, b = ip_network(inner, strict=False), ip_network(outer, strict=False)
    return a.version == b.version and a != b and int(b[0]) <= int(a[0]) and int(a[-1]) <= int(b[-1])


def _policy_port(port: Obj, at: str) -> list[Cause]:
    number, end = port.get("port"), port.get("endPort")
    causes = port_causes(f"{at}.port", number) if isinstance(number, int) else []
    if port.get("protocol") not in PROTOCOLS:
        causes.append(unsupported(f"{at}.protocol", port.get("protocol"), PROTOCOLS))
    if end is not None:
        if not isinstance(number, int):
            causes.append(wrong(f"{at}.endPort", end, "may not be specified when `port` is non-numeric"))
        elif end < number:
            causes.append(wrong(f"{at}.endPort", end, "must be greater than or equal to `port`"))
    return causes


def network_policy_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """NetworkPolicy."""
    spec = obj["spec"]
    causes = selector_causes(spec.get("podSelector"), "spec.podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports") or ()):
                causes += _policy_port(port, f"{at}.ports[{j}]")
            for j, peer in enumerate(rule.get(side) or ()):
                causes += _peer(peer, f"{at}.{side}[{j}]")
    for i, kind in enumerate(spec.get("policyTypes") or ()):
        if kind not in ("Ingress", "Egress"):
            causes.append(unsupported(f"spec.policyTypes[{i}]", kind, ["Egress", "Ingress"]))
    return causes
