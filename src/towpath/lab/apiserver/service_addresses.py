"""Gives Services their cluster addresses and node ports, and keeps count of what is taken."""

from ipaddress import ip_address

from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.errors import Cause, Obj, invalid
from towpath.lab.apiserver.services import NODE_PORTS, AddressRefused, Allocator
from towpath.lab.apiserver.store import Event
from towpath.lab.apiserver.validation.field import wrong

_ADDRESS_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


def admit_service(server: Server, call: Call, service: Obj, old: Obj | None) -> None:
    """Allocate what the Service lacks; an update keeps what it had. Raises ApiError 422."""
    spec, was = service["spec"], (old or {}).get("spec") or {}
    try:
        _carry_over(spec, was)
        if spec["type"] == "ExternalName":
            for key in _ADDRESS_FIELDS:
                spec.pop(key, None)
        else:
            _addresses(server.services, spec, was)
        _ports(server.services, spec, was)
    except _Refused as e:
        raise invalid("", "Service", service["metadata"].get("name") or "", [e.cause]) from e


class _Refused(Exception):
    def __init__(self, cause: Cause) -> None:
        super().__init__(cause["message"])
        self.cause = cause


def _carry_over(spec: Obj, was: Obj) -> None:
    """A client that leaves addresses and ports out means the ones there are."""
    if not was or was.get("type") == "ExternalName":
        return
    for key in _ADDRESS_FIELDS:
        if key in was and not spec.get(key):
            spec[key] = was[key]
    if spec.get("clusterIP") != was.get("clusterIP") and spec.get("clusterIPs") == was.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    if spec["type"] == "ClusterIP" and was.get("type") in ("NodePort", "LoadBalancer"):
        old = {(p.get("protocol"), p.get("nodePort")) for p in was.get("ports") or ()}
        for port in spec.get("ports") or ():
            if (port.get("protocol"), port.get("nodePort")) in old:
                port.pop("nodePort", None)
        spec.pop("externalTrafficPolicy", None)
    had = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in was.get("ports") or ()}
    if spec["type"] != "ClusterIP":
        for port in spec.get("ports") or ():
            if not port.get("nodePort") and had.get((port.get("protocol"), port.get("port"))):
                port["nodePort"] = had[port.get("protocol"), port.get("port")]


def _addresses(services: Allocator, spec: Obj, was: Obj) -> None:
    wanted = list(spec.get("clusterIPs") or ())
    if not wanted and spec.get("clusterIP"):
        wanted = [spec["clusterIP"]]
    if wanted and not spec.get("clusterIP"):
        why = "must be empty when `clusterIP` is not specified"
        raise _Refused(wrong("spec.clusterIPs", wanted, why))
    if wanted and wanted[0] != spec["clusterIP"]:
        raise _Refused(wrong("spec.clusterIPs", wanted, "first value must match `clusterIP`"))
    spec.setdefault("ipFamilyPolicy", "RequireDualStack" if len(wanted) > 1 else "SingleStack")
    families = _families(services, spec, wanted)
    if wanted[:1] == ["None"]:
        spec["clusterIP"], spec["clusterIPs"], spec["ipFamilies"] = "None", ["None"], families
        return
    old = was.get("clusterIPs") or []
    for i, address in enumerate(wanted):
        if address not in old:
            try:
                services.check(address)
            except AddressRefused as e:
                raise _Refused(wrong(f"spec.clusterIPs[{i}]", wanted, str(e))) from e
    released = len(old) > 1 and len(wanted) == 1 and spec["ipFamilyPolicy"] != "SingleStack"
    for family in families[len(wanted) :] if not released else ():
        try:
            wanted.append(services.address(family))
        except AddressRefused as e:
            raise _Refused(wrong("spec.clusterIPs", wanted, f"failed to allocate {family}: {e}")) from e
    spec["clusterIPs"] = wanted[: len(families)]
    spec["clusterIP"], spec["ipFamilies"] = wanted[0], families


def _families(services: Allocator, spec: Obj, wanted: list[str]) -> list[str]:
    """In order; as many as the policy and the cluster allow."""
    asked = list(spec.get("ipFamilies") or ())
    for address in wanted:
        if address != "None":
            try:
                family = f"IPv{ip_address(address).version}"
            except ValueError as e:
                raise _Refused(
                    wrong("spec.clusterIPs", wanted, "must be empty, 'None', or a valid IP address")
                ) from e
            if family not in asked:
                asked.append(family)
    for family in asked:
        if family not in services.families:
            raise _Refused(wrong("spec.ipFamilies[0]", family, "not configured on this cluster"))
    policy = spec["ipFamilyPolicy"]
    order = asked + [f for f in services.families if f not in asked]
    if policy == "SingleStack":
        return order[:1]
    if policy == "RequireDualStack" and len(order) < 2:
        raise _Refused(
            wrong("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services")
        )
    return order[:2]


def _ports(services: Allocator, spec: Obj, was: Obj) -> None:
    """Node ports for NodePort and LoadBalancer Services."""
    ports = spec.get("ports") or []
    if spec["type"] not in ("NodePort", "LoadBalancer") or spec.get("allocateLoadBalancerNodePorts") is False:
        return
    mine = {(p.get("protocol"), p.get("nodePort")) for p in was.get("ports") or ()}
    chosen: set[tuple[str, int]] = set()
    for i, port in enumerate(ports):
        protocol, number = port["protocol"], port.get("nodePort")
        if not number:
            while (number := services.port(protocol)) in {n for p, n in chosen if p == protocol}:
                pass
            port["nodePort"] = number
        elif number not in NODE_PORTS:
            valid = f"{NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            why = f"provided port is not in the valid range. The range of valid ports is {valid}"
            raise _Refused(wrong(f"spec.ports[{i}].nodePort", number, why))
        elif (protocol, number) in services.ports - mine or (protocol, number) in chosen:
            raise _Refused(wrong(f"spec.ports[{i}].nodePort", number, "provided port is already allocated"))
        chosen.add((protocol, number))


def _taken(service: Obj) -> tuple[set[str], set[tuple[str, int]]]:
    spec = service.get("spec") or {}
    addresses = {str(ip_address(a)) for a in spec.get("clusterIPs") or () if a not in ("", "None")}
    ports = {(p.get("protocol", "TCP"), p["nodePort"]) for p in spec.get("ports") or () if p.get("nodePort")}
    return addresses, ports


def follow_services(server: Server) -> None:
    """Count what stored Services hold, now and after each change."""
    allocator = server.services

    def on_event(event: Event) -> None:
        if event.old is not None:
            addresses, ports = _taken(event.old.obj)
            allocator.used -= addresses
            allocator.ports -= ports
        if not event.deleted:
            addresses, ports = _taken(event.new.obj)
            allocator.used |= addresses
            allocator.ports |= ports

    for stored in server.store.list("/services"):
        on_event(Event(stored.rv, None, stored, False))
    server.store.listen("/services", on_event)
