"""Calico's policies and tiers, as stored (crd.projectcalico.org/v1) and as served (projectcalico.org/v3).

Meaning is Felix's, see ``convert_calico_rules``. Where the two differ: a stored policy without ``types``
speaks of both directions (``felix/calc/policy_sorter.go``); a served one always has them, and one from a
file gets those that the API documents.

What of a policy cannot be understood makes it strict: it selects all that it may where its selectors cannot
be read, comes first where its place cannot, and only denies.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from towpath.policy.calico_order import (
    CALICO_3_32,
    GLOBAL_NETWORK_POLICY,
    NETWORK_POLICY,
    CalicoEra,
    ranked,
    tier_of_name,
)
from towpath.policy.convert_calico_rules import not_a_selector, optional_text, read_rules, selector
from towpath.policy.converted import Converted
from towpath.policy.ir import (
    BUILTIN_TIERS,
    DEFAULT_TIER,
    NAMESPACE,
    SERVICE_ACCOUNT,
    Default,
    Direction,
    Policy,
    Rule,
    Tier,
    calico_kinds,
    pods_only,
)
from towpath.policy.parts import Parts
from towpath.policy.reading import POLICY_UNREADABLE, Field, Report, Unreadable
from towpath.policy.selector import All, Has, Selector, conjunction, equal
from towpath.policy.selector_parse import (
    SelectorError,
    parse_namespace_selector,
    parse_service_account_selector,
)

TIER_UNREADABLE = "TP5042"

SERVED = "projectcalico.org/v3"

_SPEC = (
    *("tier", "order", "selector", "serviceAccountSelector", "types", "ingress", "egress"),
    "performanceHints",  # of no meaning to what is allowed
)
_GLOBAL_SPEC = (*_SPEC, "namespaceSelector", "applyOnForward", "doNotTrack", "preDNAT")
_DIRECTIONS: dict[str, Direction] = {"ingress": "ingress", "egress": "egress"}
_BOTH: tuple[Direction, ...] = ("ingress", "egress")
_LAST = float("inf")
_FIRST = (DEFAULT_TIER.name, -_LAST)
_DEFAULTS: dict[str, Default] = {"Deny": "deny", "Pass": "pass"}


class _Flags(msgspec.Struct, frozen=True):
    apply_on_forward: bool = False
    do_not_track: bool = False
    pre_dnat: bool = False


def convert_network_policy(raw: Mapping[str, Any], era: CalicoEra = CALICO_3_32) -> Converted:
    """A Calico NetworkPolicy, as decoded. Never raises. Its kind is ``NetworkPolicy.projectcalico.org``."""
    parts = Parts(Field(raw), *_SPEC)
    spec = parts.spec
    namespace = parts.read(lambda: parts.root["metadata"]["namespace"].text(), "")
    subject = conjunction(
        equal(NAMESPACE, namespace) if namespace else All(),
        parts.read(lambda: selector(spec["selector"]), None) or All(),
        parts.read(lambda: _accounts(spec["serviceAccountSelector"]), None) or All(),
    )
    policy = Policy(kind=NETWORK_POLICY, namespace=namespace, name="", selector=pods_only(subject))
    return _converted(parts, policy, _directions(parts), era)


def convert_global_network_policy(raw: Mapping[str, Any], era: CalicoEra = CALICO_3_32) -> Converted:
    """A Calico GlobalNetworkPolicy, as decoded. Never raises."""
    parts = Parts(Field(raw), *_GLOBAL_SPEC)
    directions = _directions(parts)
    flags = parts.read(lambda: _flags(parts.spec), _Flags(apply_on_forward=True))
    policy = Policy(
        kind=GLOBAL_NETWORK_POLICY,
        name="",
        selector=calico_kinds(_global_subject(parts)),
        apply_on_forward=flags.apply_on_forward,
        do_not_track=flags.do_not_track,
        pre_dnat=flags.pre_dnat,
    )
    return _converted(parts, policy, ("ingress",) if flags.pre_dnat else directions, era)


def convert_tier(raw: Mapping[str, Any]) -> Converted:
    """A Tier, as decoded. Never raises. One that cannot be understood is as one that does not exist: it comes
    last and denies by default. Those that Calico makes itself stay as it makes them.
    """
    root = Field(raw)
    report = Report("Tier", root)
    builtin = next((tier for tier in BUILTIN_TIERS if tier.name == report.name), None)
    try:
        tier = _tier(root, builtin)
    except Unreadable as problem:
        tier = builtin or Tier(name=report.name)
        place = "last" if tier.order == _LAST else f"at {tier.order:g}"
        report.note(problem, f"the tier stands {place} and its default is to {tier.default}", TIER_UNREADABLE)
    return Converted(tiers=(tier,), findings=report.findings)


def _tier(root: Field, builtin: Tier | None) -> Tier:
    name = root["metadata"]["name"].text()
    spec = root["spec"].object("order", "defaultAction")
    order, default = spec["order"], spec["defaultAction"]
    tier = Tier(
        name=name,
        order=_order(order),
        default=default.choice(_DEFAULTS) if default.given else "deny",
    )
    if builtin is None:
        return tier
    if order.given and tier.order != builtin.order:
        raise order.unreadable("is not where Calico has this tier", f"write {builtin.order:g}")
    if default.given and tier.default != builtin.default:
        raise default.unreadable("is not what this tier does", f"write {builtin.default.capitalize()}")
    return builtin


def _converted(parts: Parts, policy: Policy, directions: tuple[Direction, ...], era: CalicoEra) -> Converted:
    """The policy with its name, place and rules, which all are read here."""
    report = Report(policy.kind, parts.root)
    tier, order = parts.read(lambda: _place(parts.spec, report.name, era), _FIRST)
    rules = {one: read_rules(parts.spec, one, policy.namespace, report) for one in directions}
    if parts.problems:
        rules = {one: _strict(rules[one]) for one in directions}
        consequence = (
            "the policy allows nothing, and selects all it may where its selectors are not understood"
        )
        parts.tell(report, consequence, POLICY_UNREADABLE)
    policy = msgspec.structs.replace(
        policy,
        name=report.name,
        tier=tier,
        order=order,
        ingress=rules.get("ingress"),
        egress=rules.get("egress"),
    )
    return Converted(policies=(ranked(policy, era, stored=not _is_served(parts)),), findings=report.findings)


def _is_served(parts: Parts) -> bool:
    return parts.read(lambda: parts.root["apiVersion"].value == SERVED, False)


def _place(spec: Field, name: str, era: CalicoEra) -> tuple[str, float]:
    """Tier and order."""
    tier = tier_of_name(name) if era.tier == "name" else optional_text(spec["tier"]) or DEFAULT_TIER.name
    return tier, _order(spec["order"])


def _order(field: Field) -> float:
    """None is last, as to Felix."""
    value = field.value
    if value is None:
        return _LAST
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise field.unreadable("is no number", "write one, without quotes")
    return float(value)


def _directions(parts: Parts) -> tuple[Direction, ...]:
    served = _is_served(parts)
    return parts.read(lambda: _types(parts.spec, served), _BOTH)


def _types(spec: Field, served: bool) -> tuple[Direction, ...]:
    """The directions that a policy speaks of. Case does not matter to Felix."""
    types: dict[Direction, None] = {}
    for entry in spec["types"].entries():
        direction = _DIRECTIONS.get(entry.value.lower()) if isinstance(entry.value, str) else None
        if direction is None:
            raise entry.unreadable("is no type of policy", "write Ingress or Egress")
        types[direction] = None
    if types:
        return tuple(types)
    if not served:
        return _BOTH
    if not spec["egress"].value:
        return ("ingress",)
    return _BOTH if spec["ingress"].value else ("egress",)


def _flags(spec: Field) -> _Flags:
    """For host endpoints. Calico's API asks for applyOnForward with the other two, Felix implies it."""
    untracked, pre_dnat = spec["doNotTrack"].flag(), spec["preDNAT"].flag()
    forward = spec["applyOnForward"].flag()
    if untracked and pre_dnat:
        raise spec["preDNAT"].unreadable("stands beside doNotTrack", "set only one of them")
    if pre_dnat and (spec["egress"].value or (spec["types"].value and "egress" in _types(spec, False))):
        raise spec["preDNAT"].unreadable("stands in a policy for egress", "make two policies of it")
    return _Flags(forward or untracked or pre_dnat, untracked, pre_dnat)


def _global_subject(parts: Parts) -> Selector:
    """By Felix's reading ``all()``, anywhere beside a namespaceSelector, is what is in a namespace; and
    beside a serviceAccountSelector alone, what has a service account.
    """
    spec = parts.spec
    where = parts.read(lambda: _namespaces(spec["namespaceSelector"]), None)
    accounts = parts.read(lambda: _accounts(spec["serviceAccountSelector"]), None)
    everything: Selector = All()
    if where is not None:
        everything = Has(NAMESPACE)
    elif accounts is not None:
        everything = Has(SERVICE_ACCOUNT)
    own = parts.read(lambda: selector(spec["selector"], everything), None)
    return conjunction(*(part for part in (own, where, accounts) if part is not None))


def _namespaces(field: Field) -> Selector | None:
    text = optional_text(field)
    try:
        return parse_namespace_selector(text) if text else None
    except SelectorError as error:
        raise not_a_selector(field, error) from error


def _accounts(field: Field) -> Selector | None:
    text = optional_text(field)
    try:
        return parse_service_account_selector(text, everything=Has(SERVICE_ACCOUNT)) if text else None
    except SelectorError as error:
        raise not_a_selector(field, error) from error


def _strict(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Nothing is allowed, nothing passed by."""
    return tuple(
        msgspec.structs.replace(rule, action="deny") for rule in rules if rule.action in ("deny", "pass")
    )
