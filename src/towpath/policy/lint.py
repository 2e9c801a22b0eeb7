"""What is probably not meant: selectors and port names that match nothing, lists that mean everybody, tiers
that are not there. ``shadow`` has the rules that come too late.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from towpath.model.finding import Finding
from towpath.policy.connections import protocol_text
from towpath.policy.convert_networking import KIND as KUBERNETES
from towpath.policy.ir import BUILTIN_TIERS, KIND, Policy, Rule, World
from towpath.policy.selector import Selector
from towpath.policy.selector_text import selector_text
from towpath.policy.shadow import shadowed
from towpath.policy.world import Assembled

SELECTS_NOTHING, PEER_NOTHING, EMPTY_PEERS = "TP5131", "TP5132", "TP5135"
NO_TIER, NO_PORT = "TP5136", "TP5137"


def lint(assembled: Assembled) -> tuple[Finding, ...]:
    """All findings: those of the conversion first. Without any pod, selectors and names are not tried."""
    world = assembled.world
    found = [*assembled.findings, *_tiers(world)]
    if any(endpoint.labels[KIND] == "pod" for endpoint in world.endpoints):
        found += _unmatched(world)
    found += shadowed(world)
    for name, raw in assembled.objects.items():
        if name.startswith(f"{KUBERNETES}/"):
            found += _empty_peers(name, raw)
    return tuple(dict.fromkeys(found))


def _warning(code: str, policy: Policy | str, message: str, fix: str) -> Finding:
    return Finding(code=code, object=str(policy), message=message, fix=fix, severity="warning")


def _tiers(world: World) -> Iterator[Finding]:
    known = {tier.name for tier in (*BUILTIN_TIERS, *world.tiers)}
    for policy in world.policies:
        if policy.tier not in known:
            message = f"spec.tier: there is no tier {policy.tier}; the policy is last and denies by default"
            yield _warning(NO_TIER, policy, message, "make the tier, or correct its name")


class _Labelled:
    """All that selectors may select, each set of labels once."""

    def __init__(self, world: World) -> None:
        judged = (e.labels for e in world.endpoints if e.labels[KIND] != "node")
        self._judged = _distinct(judged)
        every = (each.labels for group in (world.endpoints, world.network_sets) for each in group)
        self._every = _distinct(every)
        self._subjects: dict[Selector, bool] = {}
        self._answers: dict[Selector, bool] = {}
        self.ports = {(p.name, p.protocol) for endpoint in world.endpoints for p in endpoint.ports}

    def selects(self, policy: Policy) -> bool:
        if policy.selector not in self._subjects:
            self._subjects[policy.selector] = any(map(policy.selector.matches, self._judged))
        return self._subjects[policy.selector]

    def has(self, selector: Selector) -> bool:
        if selector not in self._answers:
            self._answers[selector] = any(map(selector.matches, self._every))
        return self._answers[selector]


def _distinct(labels: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return list({frozenset(each.items()): each for each in labels}.values())


def _unmatched(world: World) -> Iterator[Finding]:
    labelled = _Labelled(world)
    for policy in world.policies:
        if not labelled.selects(policy):
            message = f"spec: it selects {selector_text(policy.selector)}, and there are none"
            yield _warning(SELECTS_NOTHING, policy, message, "correct the selector or the labels")
        for rule in (*(policy.ingress or ()), *(policy.egress or ())):
            yield from _unmatched_rule(policy, rule, labelled)


def _unmatched_rule(policy: Policy, rule: Rule, labelled: _Labelled) -> Iterator[Finding]:
    for side, peer in (("source", rule.source), ("destination", rule.destination)):
        if peer.selector is not None and not labelled.has(peer.selector):
            message = f"{rule.path}: the {side} is {selector_text(peer.selector)}, and there are none"
            yield _warning(PEER_NOTHING, policy, message, "correct the selector or the labels")
    for ports in (rule.source_ports, rule.destination_ports):
        for name in ports.names if ports is not None else ():
            if not any(name == known and rule.protocol in (None, p) for known, p in labelled.ports):
                what = "" if rule.protocol is None else f"{protocol_text(rule.protocol)} "
                message = f"{rule.path}: no container has a {what}port named {name}"
                yield _warning(NO_PORT, policy, message, "correct the name, or write the number")


def _empty_peers(name: str, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """A ``from`` or ``to`` that is there and empty, as it stands in the object."""
    spec = raw.get("spec")
    for direction, key in (("ingress", "from"), ("egress", "to")):
        rules = spec.get(direction) if isinstance(spec, Mapping) else None
        for number, rule in enumerate(rules if isinstance(rules, list) else ()):
            if isinstance(rule, Mapping) and rule.get(key) == []:
                message = f"spec.{direction}[{number}].{key}: an empty list of peers allows everybody"
                yield _warning(EMPTY_PEERS, name, message, "name peers, or remove the rule")
