"""The one form that all policy APIs are converted into: tiers of policies of rules, over labelled endpoints.

Evaluation, per endpoint and direction (Calico's model, which contains the others):

1. Tiers by (order, name). Within one, the policies that select the endpoint and speak of the direction, by
   (order, rank, name…): ``Policy.sort_key``.
2. Their rules in order. allow: accepted, nothing more is asked. deny: dropped. pass: on to the next tier.
   log: noted, and on to the next rule.
3. A tier in which at least one policy applied and no rule decided: its ``default`` (deny, or pass).
   A tier in which none applied is skipped.
4. After the last tier: the endpoint's ``unmatched`` (a pod allows, a host endpoint denies).

A flow between two endpoints must be allowed by the source's egress and by the destination's ingress.

Labels. An endpoint carries its own labels and, prefixed, those of its namespace (``pcns.KEY``) and service
account (``pcsa.KEY``), as in Calico; and these:

======================================  =======================================================
``towpath.io/kind``                     ``pod``, ``networkset``, ``hostendpoint`` or ``node``
``projectcalico.org/orchestrator``      ``k8s`` on pods
``projectcalico.org/namespace``         of pods and namespaced network sets
``projectcalico.org/serviceaccount``    of pods
``pcns.projectcalico.org/name``         the namespace's name, also as ``pcns.kubernetes.io/metadata.name``
``pcsa.projectcalico.org/name``         the service account's name
======================================  =======================================================

Converters must say which kinds they mean (``pods_only``): a selector without that matches nodes as well, and
the sets of kind ``unreadable`` that stand for networks nobody can read (``convert_calico_endpoints``).
"""

from typing import Literal

import msgspec

from towpath.model.failsafe import DEFAULT_FAILSAFES, Failsafes
from towpath.model.net import Addr, Net
from towpath.policy.selector import All, Selector, conjunction, equal, one_of

Direction = Literal["ingress", "egress"]
Action = Literal["allow", "deny", "pass", "log"]
Default = Literal["deny", "pass", "allow"]
Aspect = Literal["local", "forwarded", "untracked", "pre-dnat"]
"""Where a host endpoint is asked: about connections of the host's own, about those that pass through, about
packets before they are tracked, about those that come in before DNAT. Pods are asked in one way only.
"""
Routing = Literal["tunnel", "direct", "either"]
"""How nodes reach each other's pods: by the overlay; by the underlay alone (backend host-gw); or, where nodes
that share a link do without the overlay (DirectRouting), either, which no object tells.
"""


KIND = "towpath.io/kind"
NAMESPACE = "projectcalico.org/namespace"
ORCHESTRATOR = "projectcalico.org/orchestrator"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX = "pcns.", "pcsa."
NAMESPACE_NAME, SERVICE_ACCOUNT_NAME = "pcns.projectcalico.org/name", "pcsa.projectcalico.org/name"
METADATA_NAME = "kubernetes.io/metadata.name"

TCP, UDP, SCTP, ICMP, ICMPV6, UDPLITE = 6, 17, 132, 1, 58, 136
PORT_PROTOCOLS = (TCP, UDP, SCTP)


class NamedPort(msgspec.Struct, frozen=True, gc=False):
    """A container's port: ``protocol`` an IP protocol number."""

    name: str
    protocol: int
    port: int


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Something with addresses of its own that policies select: a pod, a host endpoint, a node.

    ``name`` is unique among all endpoints: ``Pod/NAMESPACE/NAME``, ``Node/NAME``, ``HostEndpoint/NAME``.
    ``labels`` complete, as the module describes. ``unmatched``: what no tier decided. ``node`` where it is,
    empty if nobody knows. ``interface`` of a host endpoint: a name; ``*`` for all; empty for the one that has
    any of its addresses.
    """

    name: str
    labels: dict[str, str]
    addresses: tuple[Addr, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    unmatched: Literal["allow", "deny"] = "allow"
    node: str = ""
    interface: str = ""


class NetworkSet(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled networks: a peer that selects its labels means its networks. ``name``: ``NetworkSet/NS/NAME``
    or ``GlobalNetworkSet/NAME``.
    """

    name: str
    labels: dict[str, str]
    nets: tuple[Net, ...] = ()


class Ports(msgspec.Struct, frozen=True):
    """Any of them: ``ranges`` inclusive, sorted and disjoint; ``names`` as the destination endpoint calls
    them (for the rule's protocol; a name the endpoint does not have matches nothing).
    """

    ranges: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()


class Icmp(msgspec.Struct, frozen=True):
    """``code`` None: any; ``type`` None: any, and then so is the code."""

    type: int | None = None
    code: int | None = None


class ServiceRef(msgspec.Struct, frozen=True):
    """A Service as a peer: by way of its EndpointSlices."""

    namespace: str
    name: str


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a rule: all that is asked must hold. None is "not asked"; ``nets`` () matches nothing.

    ``selector`` holds of an address if an endpoint with that address, or a network set that contains it, is
    selected; ``not_selector`` if neither is. ``service`` is gone after ``services.resolve``.
    """

    selector: Selector | None = None
    not_selector: Selector | None = None
    nets: tuple[Net, ...] | None = None
    not_nets: tuple[Net, ...] = ()
    service: ServiceRef | None = None


ANY = Peer()


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """All that is asked must hold. ``path`` says where in the object it stands: ``spec.ingress[0].from[1]``.

    ``protocol`` is an IP protocol number. ``destination_ports`` and ``source_ports`` ask for a protocol with
    ports, which a rule that has them names. An ``icmp`` asks for ICMP, and ICMPv6 for IPv6.
    """

    action: Action
    path: str = ""
    family: Literal[4, 6] | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: Peer = ANY
    destination: Peer = ANY
    source_ports: Ports | None = None
    not_source_ports: Ports | None = None
    destination_ports: Ports | None = None
    not_destination_ports: Ports | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """``kind``, ``namespace`` (empty if cluster-wide) and ``name`` are the API object's, and identify it.

    ``ingress`` and ``egress`` None: the direction is not spoken of; (): spoken of, and no rule decides.
    ``selector`` over endpoints' labels. ``rank`` breaks ties of ``order`` before names do. The last three are
    for host endpoints only (Calico).
    """

    kind: str
    namespace: str = ""
    name: str
    tier: str = "default"
    order: float = float("inf")
    rank: str = ""
    selector: Selector = All()
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None
    apply_on_forward: bool = False
    do_not_track: bool = False
    pre_dnat: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity."""
        return (self.kind, self.namespace, self.name)

    @property
    def sort_key(self) -> tuple[float, str, str, str, str]:
        """Place within the tier."""
        return (self.order, self.rank, self.name, self.namespace, self.kind)

    @property
    def aspects(self) -> tuple[Aspect, ...]:
        """Where it is asked at a host endpoint; at a pod only if these include ``local``."""
        if self.do_not_track:
            return ("untracked",)
        if self.pre_dnat:
            return ("pre-dnat",)
        return ("local", "forwarded") if self.apply_on_forward else ("local",)

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        """The direction's rules, None where it is not spoken of."""
        return self.ingress if direction == "ingress" else self.egress

    def __str__(self) -> str:
        return "/".join(part for part in self.key if part)


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """Policies name it. One that does not exist sorts last and denies (Calico's Felix does the same)."""

    name: str
    order: float = float("inf")
    default: Default = "deny"

    @property
    def sort_key(self) -> tuple[float, str]:
        """Place among the tiers."""
        return (self.order, self.name)


# Those that exist whatever the API says. Orders are Calico's (3.29 to 3.32).
DEFAULT_TIER = Tier(name="default", order=1_000_000, default="deny")
ANP_TIER = Tier(name="adminnetworkpolicy", order=1_000, default="pass")
BANP_TIER = Tier(name="baselineadminnetworkpolicy", order=10_000_000, default="pass")
KUBE_ADMIN_TIER = Tier(name="kube-admin", order=1_000, default="pass")
KUBE_BASELINE_TIER = Tier(name="kube-baseline", order=10_000_000, default="pass")
BUILTIN_TIERS = (DEFAULT_TIER, ANP_TIER, BANP_TIER, KUBE_ADMIN_TIER, KUBE_BASELINE_TIER)


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a verdict depends on. ``tiers`` beyond the built-in ones, or in their stead (by name).
    ``failsafes``: of all nodes' host endpoints.
    """

    tiers: tuple[Tier, ...] = ()
    policies: tuple[Policy, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    failsafes: Failsafes = DEFAULT_FAILSAFES
    routing: Routing = "tunnel"


def pods_only(selector: Selector) -> Selector:
    """Those of its endpoints that are pods."""
    return conjunction(equal(KIND, "pod"), selector)


def calico_kinds(selector: Selector) -> Selector:
    """Those that Calico's selectors speak of; nodes are not among them."""
    return conjunction(one_of(KIND, ("pod", "networkset", "hostendpoint")), selector)


def ordered_tiers(world: World) -> list[Tier]:
    """All tiers that policies may be in, in order; those that policies merely name come last and deny."""
    known = {tier.name: tier for tier in (*BUILTIN_TIERS, *world.tiers)}
    for policy in world.policies:
        known.setdefault(policy.tier, Tier(name=policy.tier))
    return sorted(known.values(), key=lambda tier: tier.sort_key)
