"""Rules and policies that come too late, as far as ``covers`` can prove it.

Of Kubernetes' own NetworkPolicies, which only allow and have no order, no two are held against each other.
"""

from collections.abc import Iterator

import msgspec

from towpath.model.finding import Finding
from towpath.policy.convert_networking import KIND as KUBERNETES
from towpath.policy.covers import rule_covers, selector_covers
from towpath.policy.ir import Direction, Policy, Rule, Tier, World, ordered_tiers
from towpath.policy.selector import Selector

RULE_SHADOWED, POLICY_SHADOWED = "TP5133", "TP5134"
_DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


class _Placed(msgspec.Struct, frozen=True):
    """A policy in its tier. ``passing``: a rule of the tier passes, which may skip the policy."""

    policy: Policy
    tier: Tier
    passing: dict[Direction, bool]

    def ends(self, direction: Direction) -> bool:
        """Whether nothing that the policy selects gets past its tier."""
        spoken = self.policy.rules(direction) is not None
        return spoken and self.tier.default != "pass" and not self.passing[direction]


def shadowed(world: World) -> Iterator[Finding]:
    """Those that can never decide, each with what comes before it. Untracked and pre-DNAT policies are not
    looked at.
    """
    earlier: dict[tuple[str, bool], dict[Selector, list[_Placed]]] = {}
    for tier in ordered_tiers(world):
        policies = sorted((p for p in world.policies if p.tier == tier.name), key=lambda p: p.sort_key)
        policies = [p for p in policies if not (p.do_not_track or p.pre_dnat)]
        passing = {d: any(map(_passes, _rules(policies, d))) for d in _DIRECTIONS}
        for policy in policies:
            before = [
                one
                for key in _beside(policy)
                for selector, placed in earlier.get(key, {}).items()
                if selector_covers(selector, policy.selector)
                for one in placed
            ]
            yield from _policy(policy, tier, before)
            key = (policy.namespace, policy.kind == KUBERNETES)
            of_selector = earlier.setdefault(key, {}).setdefault(policy.selector, [])
            of_selector.append(_Placed(policy, tier, passing))


def _beside(policy: Policy) -> Iterator[tuple[str, bool]]:
    """Of which namespaces, and whether of Kubernetes' own, are those that may select all that it does."""
    for namespace in dict.fromkeys(("", policy.namespace)):
        yield namespace, False
        if policy.kind != KUBERNETES:
            yield namespace, True


def _passes(rule: Rule) -> bool:
    return rule.action == "pass"


def _rules(policies: list[Policy], direction: Direction) -> Iterator[Rule]:
    return (rule for policy in policies for rule in policy.rules(direction) or ())


def _policy(policy: Policy, tier: Tier, before: list[_Placed]) -> Iterator[Finding]:
    """One finding if nothing of the policy decides, else one for each rule."""
    late: dict[Direction, dict[str, str]] = {}
    spoken = [direction for direction in _DIRECTIONS if policy.rules(direction)]
    for direction in spoken:
        late[direction] = _late(policy, tier, direction, before)
    if spoken and all(
        {rule.path for rule in policy.rules(d) or ()} <= late[d].keys() and _placed_before(tier, d, before)
        for d in spoken
    ):
        reasons = "; ".join(dict.fromkeys(reason for d in spoken for reason in late[d].values()))
        yield _finding(POLICY_SHADOWED, policy, f"spec: nothing of it can decide: {reasons}")
        return
    for direction in spoken:
        for path, reason in late[direction].items():
            yield _finding(RULE_SHADOWED, policy, f"{path}: it can never decide: {reason}")


def _placed_before(tier: Tier, direction: Direction, before: list[_Placed]) -> bool:
    """Whether the policy does not even make the difference that a tier's default applies."""
    return any(
        one.ends(direction) or (one.tier == tier and one.policy.rules(direction) is not None)
        for one in before
    )


def _late(policy: Policy, tier: Tier, direction: Direction, before: list[_Placed]) -> dict[str, str]:
    """By path, why: what stands at one path may be several rules, all of which must come too late."""
    found: dict[str, str] = {}
    kept: set[str] = set()
    mine: list[Rule] = []
    for rule in policy.rules(direction) or ():
        reason = _reason(rule, mine, tier, direction, before)
        if reason:
            found.setdefault(rule.path, reason)
        else:
            kept.add(rule.path)
        mine.append(rule)
    return {path: reason for path, reason in found.items() if path not in kept}


def _reason(rule: Rule, mine: list[Rule], tier: Tier, direction: Direction, before: list[_Placed]) -> str:
    for one in before:
        if one.tier != tier and one.passing[direction]:
            continue
        for other in one.policy.rules(direction) or ():
            if other.action != "log" and rule_covers(other, rule):
                return f"{other.path} of {one.policy} matches all of it first"
        if one.tier != tier and one.ends(direction):
            return f"tier {one.tier.name} ends with its default for all that {one.policy} selects"
    for other in mine:
        if other.path != rule.path and other.action != "log" and rule_covers(other, rule):
            return f"{other.path} matches all of it first"
    return ""


def _finding(code: str, policy: Policy, message: str) -> Finding:
    fix = "remove it, or give it a place in front of the other"
    return Finding(code=code, object=str(policy), message=message, fix=fix, severity="warning")
