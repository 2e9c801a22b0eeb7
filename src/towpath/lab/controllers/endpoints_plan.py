"""EndpointSlices and Endpoints of a Service, from its pods. Pure.

Semantics are upstream's (k8s.io/endpointslice, kubernetes/pkg/controller/endpoint); names of slices are
derived from the Service, so that writing one twice makes no second.
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import msgspec

from towpath.lab.controllers.actions import Action, Create, Delete, Patch
from towpath.lab.controllers.hashing import content_hash
from towpath.lab.controllers.objects_core import (
    Endpoints,
    EndpointSlice,
    Pod,
    Service,
    ServicePort,
)
from towpath.lab.controllers.objects_meta import Body
from towpath.lab.controllers.ownership import controller_reference
from towpath.lab.controllers.podstate import FINISHED, is_ready
from towpath.lab.controllers.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
LEGACY_MANAGED_BY = ("endpoints.kubernetes.io/managed-by", "endpoint-controller")
HEADLESS = "service.kubernetes.io/headless"
MAX_ENDPOINTS = 100

PortKey = tuple[tuple[str, str, int | None, str | None], ...]


class Candidate(msgspec.Struct, frozen=True):
    """A pod that backs the Service; ``ports`` are (name, protocol, number, application protocol)."""

    pod: Pod
    ports: PortKey
    ready: bool
    serving: bool
    terminating: bool


def service_key(item: EndpointSlice) -> list[str]:
    """``namespace/name`` of the Service a slice belongs to; none if it says none."""
    name = item.metadata.label(SERVICE_NAME)
    return [f"{item.metadata.namespace}/{name}"] if name else []


def families(service: Service) -> list[str]:
    """Address types of its slices: the Service's families, IPv4 where it names none."""
    return list(service.spec.ip_families or ("IPv4",))


def candidates(service: Service, pods: Iterable[Pod]) -> list[Candidate]:
    """The selected pods that have an address, by name. Finished pods serve nothing."""
    publish = bool(service.spec.publish_not_ready_addresses)
    found = []
    for pod in sorted(pods, key=lambda p: p.metadata.name):
        if pod.status.phase in FINISHED or not pod.status.pod_ip or not pod.spec.node_name:
            continue
        serving, terminating = is_ready(pod) or publish, pod.metadata.deleting
        ready = publish or (serving and not terminating)
        found.append(Candidate(pod, _ports(service, pod), ready, serving, terminating))
    return found


def _ports(service: Service, pod: Pod) -> PortKey:
    ports = []
    for port in service.spec.ports or ():
        number = target_port(port, pod)
        if number:
            ports.append((port.name, port.protocol, number, port.app_protocol))
    return tuple(ports)


def target_port(port: ServicePort, pod: Pod) -> int:
    """The pod's port behind a Service port: a number, or its container port of that name; 0 for none."""
    target = port.target_port
    if isinstance(target, str) and not target.isdigit():
        for container in pod.spec.containers or ():
            for offered in container.ports or ():
                if (offered.name, offered.protocol) == (target, port.protocol):
                    return offered.container_port
        return 0
    return int(target) if target else port.port


def addresses(pod: Pod, family: str) -> list[str]:
    """The pod's addresses of one family ("IPv4" or "IPv6"), the primary alone as an endpoint has one."""
    every = [i.ip for i in pod.status.pod_ips or ()] or [pod.status.pod_ip]
    return [a for a in every if _family(a) == family][:1]


def _family(text: str) -> str:
    try:
        return f"IPv{ip_address(text).version}"
    except ValueError:
        return ""


def endpoint_slices(service: Service, backing: Sequence[Candidate]) -> dict[str, Body]:
    """The slices the Service should have, by name; at most 100 endpoints each, one port set each."""
    slices: dict[str, Body] = {}
    for family in families(service):
        groups: dict[PortKey, list[Body]] = {}
        for candidate in backing:
            found = addresses(candidate.pod, family)
            if found:
                groups.setdefault(candidate.ports, []).append(_endpoint(service, candidate, found))
        # A Service without endpoints keeps one empty slice, as upstream's placeholder.
        for ports, members in (groups or {(): []}).items():
            for index in range(0, max(1, len(members)), MAX_ENDPOINTS):
                digest = content_hash([service.metadata.uid, family, ports, index], 5)
                body = _slice(service, family, ports, members[index : index + MAX_ENDPOINTS])
                slices[f"{service.metadata.name}-{digest}"] = body
    return slices


def _endpoint(service: Service, candidate: Candidate, found: list[str]) -> Body:
    pod = candidate.pod
    endpoint: Body = {
        "addresses": found,
        "conditions": {
            "ready": candidate.ready,
            "serving": candidate.serving,
            "terminating": candidate.terminating,
        },
        "nodeName": pod.spec.node_name,
        "targetRef": _target(pod),
    }
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        endpoint["hostname"] = pod.spec.hostname
    return endpoint


def _target(pod: Pod) -> Body:
    meta = pod.metadata
    return {"kind": PODS.kind, "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}


def _slice(service: Service, family: str, ports: PortKey, members: list[Body]) -> Body:
    labels = {**(service.metadata.labels or {}), SERVICE_NAME: service.metadata.name, MANAGED_BY: MANAGER}
    if service.spec.cluster_ip == "None":
        labels[HEADLESS] = ""
    return {
        "metadata": {
            "labels": labels,
            "ownerReferences": [controller_reference(SERVICES, service.metadata)],
        },
        "addressType": family,
        "endpoints": members,
        "ports": [_port(*p) for p in ports],
    }


def _port(name: str, protocol: str, number: int | None, application: str | None) -> Body:
    port: Body = {"name": name, "port": number, "protocol": protocol}
    return {**port, "appProtocol": application} if application else port


def plan_slices(
    service: Service, backing: Sequence[Candidate], existing: Iterable[EndpointSlice]
) -> list[Action]:
    """Writes that turn the ``existing`` slices managed here into those wanted; others' are left alone."""
    held = {s.metadata.name: s for s in existing if s.metadata.label(MANAGED_BY) == MANAGER}
    actions: list[Action] = []
    wanted = endpoint_slices(service, backing)
    for name, body in wanted.items():
        old = held.pop(name, None)
        if old is None:
            meta = {**body["metadata"], "name": name}
            actions.append(Create(ENDPOINT_SLICES, service.metadata.namespace, {**body, "metadata": meta}))
        elif _differs(old, body):
            actions.append(Patch(ENDPOINT_SLICES, service.metadata.namespace, name, body))
    actions += [
        Delete(ENDPOINT_SLICES, s.metadata.namespace, s.metadata.name, s.metadata.uid) for s in held.values()
    ]
    return actions


def _differs(old: EndpointSlice, body: Body) -> bool:
    new = msgspec.convert(body, EndpointSlice)
    labels = body["metadata"]["labels"]
    return (old.endpoints or [], old.ports or []) != (new.endpoints or [], new.ports or []) or any(
        old.metadata.label(k) != v for k, v in labels.items()
    )


def endpoints(service: Service, backing: Sequence[Candidate]) -> list[Body]:
    """``subsets`` of the Endpoints object: the Service's primary family only, as the legacy API has it."""
    family = families(service)[0]
    subsets: dict[PortKey, tuple[list[Body], list[Body]]] = {}
    for candidate in backing:
        if candidate.terminating and not candidate.ready:
            continue
        for address in addresses(candidate.pod, family):
            ready, other = subsets.setdefault(candidate.ports, ([], []))
            entry = {
                "ip": address,
                "nodeName": candidate.pod.spec.node_name,
                "targetRef": _target(candidate.pod),
            }
            (ready if candidate.ready else other).append(entry)
    rows: list[Body] = []
    for ports, (ready, other) in sorted(subsets.items(), key=lambda s: repr(s[0])):
        row: Body = {"addresses": ready} if ready else {}
        if other:
            row["notReadyAddresses"] = other
        rows.append({**row, "ports": [_nameless(_port(*p)) for p in ports]})
    return rows


def _nameless(port: Body) -> Body:
    return {k: v for k, v in port.items() if v != ""}


def plan_endpoints(
    service: Service, backing: Sequence[Candidate], existing: Endpoints | None
) -> list[Action]:
    """The write that makes the Endpoints object current, if one is needed."""
    subsets = endpoints(service, backing)
    managed, manager = LEGACY_MANAGED_BY
    labels = {**(service.metadata.labels or {}), managed: manager}
    if service.spec.cluster_ip == "None":
        labels[HEADLESS] = ""
    meta: Body = {"name": service.metadata.name, "labels": labels}
    if existing is None:
        return [Create(ENDPOINTS, service.metadata.namespace, {"metadata": meta, "subsets": subsets})]
    labelled = all(existing.metadata.label(k) == v for k, v in labels.items())
    if (existing.subsets or []) == subsets and labelled:
        return []
    return [
        Patch(
            ENDPOINTS,
            service.metadata.namespace,
            service.metadata.name,
            {"metadata": meta, "subsets": subsets},
        )
    ]
