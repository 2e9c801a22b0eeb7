"""What a converter makes of API objects."""

import msgspec

from towpath.model.finding import Finding
from towpath.policy.ir import Endpoint, NetworkSet, Policy, Tier


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """Of one object, or of many. ``findings`` say where it is stricter than what was written."""

    policies: tuple[Policy, ...] = ()
    tiers: tuple[Tier, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    findings: tuple[Finding, ...] = ()
