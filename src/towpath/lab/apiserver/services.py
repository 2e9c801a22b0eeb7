"""ClusterIPs and NodePorts: what a Service asks for, what it gets, what is taken."""

import random
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
NODE_PORTS = range(30000, 32768)


class AddressRefused(ValueError):
    """An address or port that cannot be had; the text says why, in upstream's words."""


@dataclass(slots=True)
class Allocator:
    """Service networks (the first one is the default family) and the addresses and ports in use."""

    networks: tuple[Network, ...]
    used: set[str] = field(default_factory=set)
    ports: set[tuple[str, int]] = field(default_factory=set)

    @classmethod
    def of(cls, cidrs: str) -> "Allocator":
        """From ``10.43.0.0/16,fd00:10:43::/112``. Raises ValueError."""
        return cls(tuple(ip_network(c.strip()) for c in cidrs.split(",") if c.strip()))

    @property
    def families(self) -> list[str]:
        """``["IPv4", "IPv6"]`` in order of preference."""
        return [f"IPv{n.version}" for n in self.networks]

    def address(self, family: str) -> str:
        """A free address of the family. Raises AddressRefused."""
        network = next((n for n in self.networks if f"IPv{n.version}" == family), None)
        if network is None:
            raise AddressRefused(f"not configured on this cluster: {family}")
        base, size = int(network.network_address), min(network.num_addresses, 1 << 16)
        start = random.randrange(16, max(size - 1, 17))  # noqa: S311 - low addresses stay for those who ask by number
        kind = IPv4Address if network.version == 4 else IPv6Address
        for i in range(size - 2):
            candidate = str(kind(base + 1 + (start + i) % (size - 2)))
            if candidate not in self.used:
                return candidate
        raise AddressRefused("range is full")

    def check(self, text: str) -> None:
        """Raises AddressRefused for an address that is no address, outside the networks, or taken."""
        try:
            address = ip_address(text)
        except ValueError as e:
            raise AddressRefused("must be empty, 'None', or a valid IP address") from e
        if not any(address in n and address != n.network_address for n in self.networks):
            ranges = ", ".join(map(str, self.networks))
            raise AddressRefused(
                f"failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. "
                f"The range of valid IPs is {ranges}"
            )
        if str(address) in self.used:
            raise AddressRefused(f"failed to allocate IP {text}: provided IP is already allocated")

    def port(self, protocol: str) -> int:
        """A free NodePort. Raises AddressRefused."""
        start = random.randrange(len(NODE_PORTS))  # noqa: S311
        for i in range(len(NODE_PORTS)):
            candidate = NODE_PORTS[(start + i) % len(NODE_PORTS)]
            if (protocol, candidate) not in self.ports:
                return candidate
        raise AddressRefused("no NodePort is free")
