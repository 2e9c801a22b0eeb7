"""What a sink of ``Objects`` was told, as a world: what the engine should make of the same."""

from towpath.policy.ir import Endpoint, NetworkSet, Policy, Tier, World


class Told:
    """What a sink holds after all it was told; ``calls`` counts the telling."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.policies: dict[tuple[str, str, str], Policy] = {}
        self.tiers: dict[str, Tier] = {}
        self.network_sets: dict[str, NetworkSet] = {}
        self.calls = 0

    def upsert_endpoint(self, endpoint: Endpoint) -> None:
        self.calls += 1
        self.endpoints[endpoint.name] = endpoint

    def remove_endpoint(self, name: str) -> None:
        self.calls += 1
        del self.endpoints[name]

    def upsert_policy(self, policy: Policy) -> None:
        self.calls += 1
        self.policies[policy.key] = policy

    def remove_policy(self, key: tuple[str, str, str]) -> None:
        self.calls += 1
        del self.policies[key]

    def upsert_tier(self, tier: Tier) -> None:
        self.calls += 1
        self.tiers[tier.name] = tier

    def remove_tier(self, name: str) -> None:
        self.calls += 1
        del self.tiers[name]

    def upsert_network_set(self, network_set: NetworkSet) -> None:
        self.calls += 1
        self.network_sets[network_set.name] = network_set

    def remove_network_set(self, name: str) -> None:
        self.calls += 1
        del self.network_sets[name]

    def world(self) -> World:
        """All of it."""
        return World(
            tiers=tuple(self.tiers.values()),
            policies=tuple(self.policies.values()),
            endpoints=tuple(self.endpoints.values()),
            network_sets=tuple(self.network_sets.values()),
        )
