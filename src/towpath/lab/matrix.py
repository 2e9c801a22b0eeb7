"""Who should reach whom in a lab, and as whom: the expected table, and the judgement of what was observed.

Pure. Asking is the control socket's verb ``run-in``; ``towpath verify`` puts the two together.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Literal

import msgspec

from towpath.api.core import Node, Pod

Protocol = Literal["tcp", "udp", "icmp"]

SAME_NODE, CROSS_NODE = "pod → pod, same node", "pod → pod, cross node"
NODE_LOCAL, NODE_REMOTE = "node → its pods", "node → other nodes' pods"
OUTSIDE = "pod → outside, SNAT"
RELATIONS = (SAME_NODE, CROSS_NODE, NODE_LOCAL, NODE_REMOTE, OUTSIDE)
OUTSIDE_PORT = 8080
_SILENCE = "timeout"  # of the prober's; denied packets are dropped without a word


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One question. ``origin`` is ``pod NS/NAME`` or ``node NAME``; ``client`` are the addresses of which the
    target must see one (empty: any). ``allowed`` False: nothing must come back.
    """

    relation: str
    family: Literal[4, 6]
    protocol: Protocol
    origin: tuple[Literal["pod", "node"], str]
    target: str
    addr: str
    port: int = 0
    client: frozenset[str] = frozenset()
    allowed: bool = True


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a cell. ``why`` is empty when it went as expected."""

    cell: Cell
    ms: float
    why: str


def expected(nodes: Iterable[Node], pods: Iterable[Pod], outside: Iterable[str]) -> tuple[Cell, ...]:
    """Every pod and node to every pod, every pod to the outside; TCP, UDP and ICMP; both families.

    A pod must see its peers' own addresses; the outside must see the node's. Pods that are not Running, or
    are on the host's network, are neither asked nor targets.
    """
    running = [p for p in pods if p.status.phase == "Running" and not p.spec.host_network]
    by_name = {node.metadata.name: node for node in nodes}
    cells: list[Cell] = []
    for target in running:
        for source in running:
            if _name(source) != _name(target):
                cells += _between_pods(source, target)
        for name in by_name:
            cells += _from_node(name, target)
    for source in running:
        cells += _to_outside(source, by_name.get(source.spec.node_name), outside)
    return tuple(cells)


def questions(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """The body of ``run-in``: one entry an origin, its destinations in the order of the cells."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        where = {"addr": cell.addr, "port": cell.port, "proto": cell.protocol}
        grouped.setdefault(cell.origin, []).append(where)
    return [{"from": {kind: name}, "to": to} for (kind, name), to in grouped.items()]


def judge(cells: Iterable[Cell], answers: Iterable[Mapping[str, Any]]) -> tuple[Verdict, ...]:
    """Match the answers of ``run-in`` with the cells asked for; an origin that gave none failed in all."""
    by_origin = {next(iter(a["from"].items())): iter(a["to"]) for a in answers}
    verdicts = []
    for cell in cells:
        outcome = next(by_origin.get(cell.origin, iter(())), None)
        if outcome is None:
            verdicts.append(Verdict(cell=cell, ms=0.0, why="the prober gave no answer"))
            continue
        verdicts.append(Verdict(cell=cell, ms=outcome["ms"], why=_why(cell, outcome)))
    return tuple(verdicts)


def _why(cell: Cell, outcome: Mapping[str, Any]) -> str:
    if not cell.allowed:
        silent = not outcome["ok"] and outcome["error"] == _SILENCE
        return "" if silent else f"policies deny it, and it got through ({outcome['error'] or 'answered'})"
    if not outcome["ok"]:
        return str(outcome["error"])
    seen = seen_client(outcome["answer"])
    if cell.client and cell.protocol != "icmp" and seen not in cell.client:
        return f"the target saw {seen or 'no client'} instead of {' or '.join(sorted(cell.client))}"
    return ""


def seen_client(answer: str) -> str:
    """The client's address in an echo server's ``NAME from ADDRESS:PORT`` line, "" if there is none."""
    _, found, client = answer.rpartition(" from ")
    return client.rpartition(":")[0].strip("[]") if found else ""


def _between_pods(source: Pod, target: Pod) -> Iterator[Cell]:
    relation = SAME_NODE if source.spec.node_name == target.spec.node_name else CROSS_NODE
    for family, addr in _addresses(target).items():
        client = _addresses(source).get(family)
        if client is None:
            continue
        for protocol, port in _ports(target):
            yield Cell(
                relation=relation,
                family=family,
                protocol=protocol,
                origin=("pod", _name(source)),
                target=_name(target),
                addr=addr,
                port=port,
                client=frozenset({client}),
            )


def _from_node(node: str, target: Pod) -> Iterator[Cell]:
    relation = NODE_LOCAL if target.spec.node_name == node else NODE_REMOTE
    for family, addr in _addresses(target).items():
        for protocol, port in _ports(target):
            yield Cell(
                relation=relation,
                family=family,
                protocol=protocol,
                origin=("node", node),
                target=_name(target),
                addr=addr,
                port=port,
            )


def _to_outside(source: Pod, node: Node | None, outside: Iterable[str]) -> Iterator[Cell]:
    nodes_own = frozenset(a.address for a in (node.status.addresses or [] if node else []))
    for addr in outside:
        family: Literal[4, 6] = 4 if ip_address(addr).version == 4 else 6
        if family not in _addresses(source):
            continue
        for protocol, port in _OUTSIDE_PORTS:
            yield Cell(
                relation=OUTSIDE,
                family=family,
                protocol=protocol,
                origin=("pod", _name(source)),
                target="outside",
                addr=addr,
                port=port,
                client=nodes_own,
            )


_OUTSIDE_PORTS: tuple[tuple[Protocol, int], ...] = (("tcp", OUTSIDE_PORT), ("udp", OUTSIDE_PORT), ("icmp", 0))


def _ports(pod: Pod) -> tuple[tuple[Protocol, int], ...]:
    """The first declared port of each protocol, and ICMP, which needs none."""
    found: dict[Protocol, int] = {}
    for container in pod.spec.containers or []:
        for port in container.ports or []:
            if port.protocol == "TCP":
                found.setdefault("tcp", port.container_port)
            elif port.protocol == "UDP":
                found.setdefault("udp", port.container_port)
    return (*found.items(), ("icmp", 0))


def _addresses(pod: Pod) -> dict[Literal[4, 6], str]:
    found: dict[Literal[4, 6], str] = {}
    for entry in pod.status.pod_ips or []:
        found[4 if ip_address(entry.ip).version == 4 else 6] = entry.ip
    return found


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
