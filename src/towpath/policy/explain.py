"""Why a flow is allowed or denied: all that was looked at, what decided, and what would have to change.

The walk is ``evaluate``'s own, so that what is told is what was decided.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from towpath.model.net import Addr
from towpath.policy.connections import protocol_text
from towpath.policy.evaluate import (
    Decision,
    Flow,
    Looked,
    Side,
    Unmet,
    asked,
    endpoints_at,
    host_aspects,
    judged,
    passing,
    through,
)
from towpath.policy.ir import (
    KIND,
    PORT_PROTOCOLS,
    Aspect,
    Direction,
    Endpoint,
    Icmp,
    Ports,
    ServiceRef,
    World,
)
from towpath.policy.selector import All, And, Has, In, Not, Or, Text
from towpath.policy.selector_text import selector_text

Key = tuple[str, str, str]
Outcome = Literal[
    "not selected", "other direction", "not for tracked flows", "no match", "allow", "deny", "pass", "log"
]
_SKIPPED: dict[str, Outcome] = {
    "selector": "not selected",
    "direction": "other direction",
    "aspect": "not for tracked flows",
}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One policy that does not apply, or one rule that was read. ``policy`` is ``Policy.key``, ``path`` where
    the rule stands in it; ``reasons`` why it does not apply or match, all of them.
    """

    tier: str
    policy: Key
    path: str = ""
    outcome: Outcome
    reasons: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What decided: the rule at ``path`` of ``policy``; without them the default of ``tier``; without that
    one too, what the endpoint does with what no tier decides.
    """

    allowed: bool
    tier: str = ""
    policy: Key | None = None
    path: str = ""
    text: str


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """``narrow``: the rule at ``path`` of ``policy`` must not deny the flow. ``allow``: a rule in ``policy``,
    whose rules of the direction are at ``path``, must allow it. ``select``: so must a policy to be written.
    """

    kind: Literal["narrow", "allow", "select"]
    policy: Key | None = None
    path: str = ""
    text: str


class SideExplained(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint's judgement. ``edits`` are all needed; there are none if the flow is allowed. ``passing``:
    of a host endpoint, about what its node forwards; ``aspects``: where it is asked, none if it is for a
    failsafe port.
    """

    endpoint: str
    direction: Direction
    passing: bool = False
    aspects: tuple[Aspect, ...] = ()
    steps: tuple[Step, ...]
    verdict: Verdict
    edits: tuple[Edit, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """``notes`` say why a side, or both, were not asked."""

    flow: str
    allowed: bool
    notes: tuple[str, ...]
    sides: tuple[SideExplained, ...]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All that would have to happen for the flow to be allowed."""
        return tuple(dict.fromkeys(edit for side in self.sides for edit in side.edits))


def explain(world: World, flow: Flow) -> Explanation:
    """The verdict of ``evaluate.verdict``, with its reasons."""
    sources, destinations = asked(world, flow)
    if flow.source == flow.destination or any(endpoint in destinations for endpoint in sources):
        notes = ("an endpoint always reaches itself",)
        return Explanation(flow=flow_text(world, flow), allowed=True, notes=notes, sides=())
    told: list[str] = [] if sources else [_not_judged(world, flow, "source")]
    told += [] if destinations else [_not_judged(world, flow, "destination")]
    sides = [_side(world, endpoint, "egress", flow) for endpoint in sources]
    sides += [_side(world, *passage[:2], flow, passage.aspects) for passage in passing(world, flow)]
    sides += [_side(world, endpoint, "ingress", flow) for endpoint in destinations]
    return Explanation(
        flow=flow_text(world, flow),
        allowed=all(side.verdict.allowed for side in sides),
        notes=tuple(told),
        sides=tuple(sides),
    )


def flow_text(world: World, flow: Flow) -> str:
    """``tcp from Pod/x/a (10.0.0.1) to Pod/x/b (10.0.0.2) port 80``."""
    what = protocol_text(flow.protocol)
    ends = f"{what} from {_end(world, flow, 'source')} to {_end(world, flow, 'destination')}"
    if flow.protocol in PORT_PROTOCOLS:
        return f"{ends} port {flow.destination_port}"
    return f"{ends} type {flow.icmp_type} code {flow.icmp_code}" if what.startswith("icmp") else ends


def _side(
    world: World, endpoint: Endpoint, direction: Direction, flow: Flow, aspects: tuple[Aspect, ...] = ()
) -> SideExplained:
    looked: list[Looked] = []
    decisions: list[Decision] = []
    steps: tuple[Step, ...] = ()
    edits: list[Edit] = []
    for step in through(world, endpoint, direction, flow, aspects):
        if isinstance(step, Looked):
            looked.append(step)
            continue
        if not decisions:
            steps = tuple(_step(world, endpoint, flow, one) for one in looked)
        decisions.append(step)
        if not step.allowed:
            edits.append(_edit(world, endpoint, direction, flow, step, looked))
        if step.allowed or step.rule is None:
            break  # what follows would not come about: the flow is allowed here, or once the edits are made
    return SideExplained(
        endpoint=endpoint.name,
        direction=direction,
        passing=bool(aspects),
        aspects=host_aspects(world, endpoint, direction, flow, aspects),
        steps=steps,
        verdict=_verdict(endpoint, direction, decisions[0], steps, passing=bool(aspects)),
        edits=tuple(dict.fromkeys(edits)),
    )


def _step(world: World, endpoint: Endpoint, flow: Flow, looked: Looked) -> Step:
    outcome: Outcome
    reasons: tuple[str, ...] = ()
    if looked.rule is None:
        outcome = _SKIPPED[looked.why]
        if looked.why == "selector":
            reasons = (f"{endpoint.name} is not among {selector_text(looked.policy.selector)}",)
    else:
        outcome = "no match" if looked.unmet else looked.rule.action
        reasons = tuple(_reason(world, flow, unmet) for unmet in looked.unmet)
    return Step(
        tier=looked.tier.name,
        policy=looked.policy.key,
        path=looked.rule.path if looked.rule else "",
        outcome=outcome,
        reasons=reasons,
    )


def _verdict(
    endpoint: Endpoint, direction: Direction, decision: Decision, steps: tuple[Step, ...], *, passing: bool
) -> Verdict:
    word = "allowed" if decision.allowed else "denied"
    policy, rule, tier = decision.policy, decision.rule, decision.tier
    if decision.failsafe:
        return Verdict(
            allowed=True, text=f"allowed: a failsafe port, which no policy closes on {endpoint.name}"
        )
    if policy and rule and tier:
        text = f"{word} by {rule.path} of {policy}"
        return Verdict(allowed=decision.allowed, tier=tier.name, policy=policy.key, path=rule.path, text=text)
    if tier:
        applied = ", ".join(map(str, decision.applied))
        text = f"{word} by the default of tier {tier.name}: no rule of {applied} matches"
        return Verdict(allowed=decision.allowed, tier=tier.name, text=text)
    if passing:
        text = f"{word}: no policy decides about what passes {endpoint.name}"
    elif not any(step.path for step in steps):
        text = f"{word}: no policy applies to the {direction} of {endpoint.name}"
    else:
        kind = "a pod" if endpoint.labels.get(KIND) == "pod" else "a host endpoint"
        text = f"{word}: no tier decides, and then {kind} {'allows' if decision.allowed else 'denies'}"
    return Verdict(allowed=decision.allowed, text=text)


def _edit(
    world: World,
    endpoint: Endpoint,
    direction: Direction,
    flow: Flow,
    decision: Decision,
    looked: list[Looked],
) -> Edit:
    what = flow_text(world, flow)
    policy, rule = decision.policy, decision.rule
    if policy and rule:
        text = f"keep {rule.path} of {policy} from denying {what}, or allow it in front of that rule"
        return Edit(kind="narrow", policy=policy.key, path=rule.path, text=text)
    path = f"spec.{direction}"
    if not decision.applied:
        text = f"write a policy that selects {endpoint.name} and has a rule in {path} that allows {what}"
        return Edit(kind="select", path=path, text=text)
    nearest = _nearest(decision, looked)
    text = f"add a rule to {path} of {decision.applied[0]} that allows {what}"
    policy = decision.applied[0]
    if nearest is not None and nearest.rule is not None:
        policy = nearest.policy
        reasons = "; ".join(_reason(world, flow, unmet) for unmet in nearest.unmet)
        text = f"add a rule to {path} of {policy} that allows {what}, or widen {nearest.rule.path}: {reasons}"
    return Edit(kind="allow", policy=policy.key, path=path, text=text)


def _nearest(decision: Decision, looked: list[Looked]) -> Looked | None:
    """The rule of the tier that lacked least to allow the flow."""
    allowing = [
        one
        for one in looked
        if one.tier == decision.tier and one.rule is not None and one.rule.action == "allow"
    ]
    return min(allowing, key=lambda one: len(one.unmet), default=None)


def _not_judged(world: World, flow: Flow, side: Side) -> str:
    address = _address(flow, side)
    if spared := judged(world, address):
        names = ", ".join(endpoint.name for endpoint in spared)
        return f"{names} is not asked as the {side}: a node and its own pods reach each other"
    nodes = ", ".join(node.name for node in endpoints_at(world, address))
    if nodes:
        return f"{nodes} is a node: policies do not apply to it as the {side}"
    return f"{address} belongs to no endpoint: no policy applies to it as the {side}"


def _address(flow: Flow, side: Side) -> Addr:
    return flow.source if side == "source" else flow.destination


def _end(world: World, flow: Flow, side: Side) -> str:
    address = _address(flow, side)
    names = ", ".join(endpoint.name for endpoint in endpoints_at(world, address))
    return f"{names} ({address})" if names else str(address)


_REASONS = {
    "family": "it is for IPv{asked} only",
    "protocol": "it is for {asked} only",
    "not_protocol": "it is for any protocol but {asked}",
    "icmp": "it is for ICMP {asked} only",
    "not_icmp": "it is for ICMP but {asked}",
    "selector": "{side} {end} is not among {asked}",
    "not_selector": "{side} {end} is among {asked}, which it leaves out",
    "nets": "{side} {end} is not in {asked}",
    "not_nets": "{side} {end} is in {asked}, which it leaves out",
    "service": "nothing is known of service {asked}",
    "ports": "{side} port {port} is not {asked}",
    "not_ports": "{side} port {port} is {asked}, which it leaves out",
    "no ports": "it is for ports, and {protocol} has none",
}


def _reason(world: World, flow: Flow, unmet: Unmet) -> str:
    """What is asked, and what the flow has."""
    side: Side = "source" if "source" in unmet.criterion else "destination"
    kind = unmet.criterion.removeprefix(f"{side}.").replace(f"{side}_", "")
    if isinstance(unmet.asked, Ports) and flow.protocol not in PORT_PROTOCOLS:
        kind = "no ports"
    return _REASONS[kind].format(
        asked=_asked_text(kind, unmet.asked, _ports_of(world, flow, side)),
        side=side,
        end=_end(world, flow, side),
        port=flow.source_port if side == "source" else flow.destination_port,
        protocol=protocol_text(flow.protocol),
    )


def _ports_of(world: World, flow: Flow, side: Side) -> dict[str, int]:
    """What the names of ports mean at this end, for the flow's protocol."""
    return {
        port.name: port.port
        for endpoint in endpoints_at(world, _address(flow, side))
        for port in endpoint.ports
        if port.protocol == flow.protocol
    }


def _asked_text(kind: str, asked: object, ports: Mapping[str, int]) -> str:
    match asked:
        case All() | Has() | In() | Text() | Not() | And() | Or():
            return selector_text(asked)
        case Ports(ranges, names):
            numbers = (str(first) if first == last else f"{first}-{last}" for first, last in ranges)
            named = (f"{name} ({ports.get(name, 'which it does not have')})" for name in names)
            return " or ".join((*numbers, *named)) or "any"
        case Icmp(None, _):
            return "of any type"
        case Icmp(number, code):
            return f"type {number}" if code is None else f"type {number} code {code}"
        case ServiceRef(namespace, name):
            return f"{namespace}/{name}"
        case tuple():
            return " or ".join(map(str, asked)) or "any network"
        case int() if kind != "family":
            return protocol_text(asked)
        case _:
            return str(asked)
