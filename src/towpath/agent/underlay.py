"""Which interface and addresses carry the overlay: a pure choice over what the API and the kernel say.

Order, as flannel's with the Node object put first: the ``iface`` setting (a name or an address), flannel's
annotations ``node-public-ip``/``node-public-ipv6``, the Node's InternalIPs, the interface of the default
route. ``public-ip-overwrite`` changes only what peers are told and is not looked at here.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from towpath.api.core import Node
from towpath.api.flannel import FAMILIES, PREFIX, annotations_of
from towpath.model.finding import Finding
from towpath.model.net import RT_TABLE_MAIN, Addr, Family, Net
from towpath.model.network import ClusterNetwork, Underlay
from towpath.model.state import NetState

NODE_PUBLIC_IP: dict[Family, str] = {4: PREFIX + "node-public-ip", 6: PREFIX + "node-public-ipv6"}
_DEFAULTS = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class UnderlayUnknown(Exception):
    """No interface fits; ``finding`` says what was looked for."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def discover(
    node: Node, observed: NetState, network: ClusterNetwork, iface: str = ""
) -> tuple[Underlay, tuple[Finding, ...]]:
    """This node's underlay, and what is doubtful about it. Raises UnderlayUnknown."""
    local = _local_addresses(observed, network)
    wanted: dict[Family, list[Addr]] = {4: [], 6: []}
    dev, finding = _device(node, observed, local, wanted, iface)
    findings = [finding] if finding else []
    chosen: dict[Family, Addr | None] = {4: None, 6: None}
    for family in FAMILIES:
        if not any(net.version == family for net in network.networks):
            continue
        here = sorted(a for a, d in local.items() if d == dev and a.version == family)
        preferred = [a for a in wanted[family] if a in here]
        chosen[family] = next(iter(preferred or here), None)
        if chosen[family] is None:
            findings.append(
                _finding(
                    node,
                    f"IPv{family}: interface {dev} has no address to end a tunnel at",
                    f"give {dev} a global IPv{family} address, or name another interface with iface",
                )
            )
    ipv4, ipv6 = chosen[4], chosen[6]
    return Underlay(
        dev=dev,
        mtu=observed.links[dev].mtu,
        ipv4=ipv4 if isinstance(ipv4, IPv4Address) else None,
        ipv6=ipv6 if isinstance(ipv6, IPv6Address) else None,
    ), tuple(findings)


def _device(
    node: Node,
    observed: NetState,
    local: Mapping[Addr, str],
    wanted: dict[Family, list[Addr]],
    iface: str,
) -> tuple[str, Finding | None]:
    """The interface; what was said of addresses is left in ``wanted``, the most binding first."""
    internal = _parsed(a.address for a in node.status.addresses or [] if a.type == "InternalIP")
    annotated = _parsed(annotations_of(node).get(NODE_PUBLIC_IP[family], "") for family in FAMILIES)
    for address in [*annotated, *internal]:
        wanted[address.version].append(address)
    if iface:
        address_given = _parsed([iface])
        for address in address_given:
            wanted[address.version].insert(0, address)
        dev = local.get(address_given[0], "") if address_given else iface
        if dev not in observed.links:
            raise UnderlayUnknown(
                _finding(node, f"iface {iface!r} is no interface and no address here", "correct iface")
            )
        return dev, None
    for address in annotated:
        if address not in local:
            raise UnderlayUnknown(
                _finding(
                    node,
                    f"annotation {NODE_PUBLIC_IP[address.version]} {address} is no address of this node",
                    "name an address of this node (for NAT, use public-ip-overwrite instead)",
                )
            )
    for address in [*annotated, *internal]:
        if address in local:
            return local[address], None
    return _by_default_route(node, observed, internal)


def _by_default_route(node: Node, observed: NetState, internal: list[Addr]) -> tuple[str, Finding]:
    shown = ", ".join(map(str, internal)) or "none"
    fix = "set the kubelet's --node-ip to an address of this node, or name an interface with iface"
    for default in _DEFAULTS:
        devs = sorted(r.dev for r in observed.routes if r.dst == default and r.dev in observed.links)
        if devs:
            text = f"its InternalIPs ({shown}) are not here; the default route's interface {devs[0]} is used"
            return devs[0], _finding(node, text, fix, "TP1011", "warning")
    raise UnderlayUnknown(
        _finding(node, f"its InternalIPs ({shown}) are not here, and there is no default route", fix)
    )


def on_link(peers: Iterable[Addr], observed: NetState) -> frozenset[Addr]:
    """The peers that the main table reaches without a gateway: longest prefix match.

    The prefixes of the node's own addresses count as the routes the kernel makes of them.
    """
    table: dict[tuple[int, int], dict[int, bool]] = {}

    def enter(net: Net, direct: bool) -> None:
        table.setdefault((net.version, net.prefixlen), {})[int(net.network_address)] = direct

    for address in observed.addresses:
        enter(address.interface.network, True)
    for route in observed.routes:
        if route.table == RT_TABLE_MAIN:
            enter(route.dst, route.via is None)
    lengths = {v: sorted((p for f, p in table if f == v), reverse=True) for v in FAMILIES}

    def direct(address: Addr) -> bool:
        number = int(address)
        for length in lengths[address.version]:
            shift = address.max_prefixlen - length
            answer = table[address.version, length].get(number >> shift << shift)
            if answer is not None:
                return answer
        return False

    return frozenset(peer for peer in peers if direct(peer))


def _local_addresses(observed: NetState, network: ClusterNetwork) -> dict[Addr, str]:
    """Global addresses by device, without what pods and overlays have."""
    ours: tuple[Net, ...] = network.networks
    return {
        a.interface.ip: a.dev
        for a in observed.addresses
        if a.scope == "global"
        and a.dev != "lo"
        and not a.interface.ip.is_link_local
        and not any(a.interface.ip in net for net in ours if net.version == a.interface.version)
    }


def _parsed(texts: Iterable[str]) -> list[Addr]:
    found = []
    for text in texts:
        try:
            found.append(ip_address(text))
        except ValueError:
            continue
    return found


def _finding(node: Node, message: str, fix: str, code: str = "TP1010", severity: str = "error") -> Finding:
    return Finding(
        code=code,
        object=f"Node/{node.metadata.name}",
        message=message,
        fix=fix,
        severity="warning" if severity == "warning" else "error",
    )
