"""Cells of networking, discovery, policy, RBAC, leases and priorities."""

from typing import Any

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.printers.core import name_of
from towpath.lab.apiserver.printers.pods import NONE
from towpath.lab.apiserver.printers.selector_text import selector_text
from towpath.lab.apiserver.printers.table import Printer, age, columns

SHOWN = 3


def _some(items: list[str]) -> str:
    more = f" + {len(items) - SHOWN} more..." if len(items) > SHOWN else ""
    return ",".join(items[:SHOWN]) + more


def _slice(obj: Obj, now: float) -> list[Any]:
    ports = [str(p.get("port")) if p.get("port") is not None else "*" for p in obj.get("ports") or ()]
    addresses = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    shown_ports = _some(ports) if ports else "<unset>"
    return [name_of(obj), obj.get("addressType"), shown_ports, _some(addresses) or "<unset>", age(obj, now)]


def _policy(obj: Obj, now: float) -> list[Any]:
    return [name_of(obj), selector_text((obj.get("spec") or {}).get("podSelector")) or NONE, age(obj, now)]


def _ingress(obj: Obj, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    hosts = [r["host"] for r in spec.get("rules") or () if r.get("host")]
    points = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    address = ",".join(p.get("ip") or p.get("hostname") or "" for p in points)
    ports = "80, 443" if spec.get("tls") else "80"
    return [
        name_of(obj),
        spec.get("ingressClassName") or NONE,
        _some(hosts) or "*",
        address,
        ports,
        age(obj, now),
    ]


def _ingress_class(obj: Obj, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    p = spec.get("parameters")
    shown = (
        f"{p.get('kind')}{'.' + p['apiGroup'] if p.get('apiGroup') else ''}/{p.get('name')}" if p else NONE
    )
    return [name_of(obj), spec.get("controller", ""), shown, age(obj, now)]


def _binding(obj: Obj, now: float) -> list[Any]:
    role = obj.get("roleRef") or {}
    names: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for s in obj.get("subjects") or ():
        shown = (
            f"{s.get('namespace', '')}/{s['name']}"
            if s.get("kind") == "ServiceAccount"
            else s.get("name", "")
        )
        names.setdefault(s.get("kind", ""), []).append(shown)
    wide = [", ".join(names[k]) for k in ("User", "Group", "ServiceAccount")]
    return [name_of(obj), f"{role.get('kind')}/{role.get('name')}", age(obj, now), *wide]


def _budget(obj: Obj, now: float) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    bounds = [str(spec[k]) if k in spec else "N/A" for k in ("minAvailable", "maxUnavailable")]
    return [name_of(obj), *bounds, status.get("disruptionsAllowed", 0), age(obj, now)]


def _created(obj: Obj, now: float) -> list[Any]:
    return [name_of(obj), obj["metadata"].get("creationTimestamp")]


_BINDING = "Name Role Age +Users +Groups +ServiceAccounts"

CLUSTER = {
    "discovery.EndpointSlice": Printer(columns("Name AddressType Ports Endpoints Age"), _slice),
    "networking.NetworkPolicy": Printer(columns("Name Pod-Selector Age"), _policy),
    "networking.Ingress": Printer(columns("Name Class Hosts Address Ports Age"), _ingress),
    "networking.IngressClass": Printer(columns("Name Controller Parameters Age"), _ingress_class),
    "coordination.Lease": Printer(
        columns("Name Holder Age"),
        lambda o, now: [name_of(o), (o.get("spec") or {}).get("holderIdentity") or "", age(o, now)],
    ),
    "rbac.Role": Printer(columns("Name Created_At"), _created),
    "rbac.ClusterRole": Printer(columns("Name Created_At"), _created),
    "rbac.RoleBinding": Printer(columns(_BINDING), _binding),
    "rbac.ClusterRoleBinding": Printer(columns(_BINDING), _binding),
    "policy.PodDisruptionBudget": Printer(
        columns("Name Min_Available Max_Unavailable Allowed_Disruptions:i Age"), _budget
    ),
    "scheduling.PriorityClass": Printer(
        columns("Name Value:i Global-Default:b Age PreemptionPolicy"),
        lambda o, now: [
            name_of(o), o.get("value", 0), bool(o.get("globalDefault")), age(o, now),
            o.get("preemptionPolicy") or "",
        ],
    ),
}  # fmt: skip
