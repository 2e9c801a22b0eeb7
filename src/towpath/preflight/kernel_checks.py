"""Checks that need a look at the nodes themselves (``towpath.node_reader``)."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from towpath.catalogue.model import Release
from towpath.inventory.cluster import NodeState
from towpath.inventory.node_report import NodeReport
from towpath.model.finding import Finding
from towpath.preflight import tunnel_judges
from towpath.preflight.conflist import differences
from towpath.preflight.kernel_judges import JUDGES, Judge, leases, programs
from towpath.preflight.node_checks import addresses, tunnels
from towpath.preflight.situation import Check, Situation, Untold, finding

_NEW_PROBE = 2026080601  # build of the chart from which on flanneld answers for its health on a port
CANALS_MAP = "rke2-canal-config"
_BUILD = re.compile(r"-build(\d+)$")


def looked_at(nodes: Sequence[NodeState]) -> list[tuple[NodeState, NodeReport]]:
    """All of them, with their reports. Raises Untold when one was not looked at."""
    found = [(node, node.report) for node in nodes if node.report is not None]
    if len(found) < len(nodes):
        without = [node for node in nodes if node.report is None]
        why = next((f": {node.unread}" for node in without if node.unread), "")
        some = ", ".join(node.facts.name for node in without[:5])
        raise Untold(f"nobody has looked at {len(without)} of {len(nodes)} nodes ({some}){why}")
    return found


def of_nodes(nodes: Sequence[NodeState]) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """All that is wrong with nodes that were looked at, and what cannot be told."""
    found: list[Finding] = []
    untold = [f"{node.facts.name}: {node.unread or 'not read'}" for node in nodes if node.report is None]
    for node in nodes:
        for judge in (*(judge for _, _, judge in JUDGES), leases):
            try:
                found += judge(node, node.report) if node.report is not None else ()
            except Untold as why:
                untold.append(str(why))
    return (*found, *tunnel_judges.ends(nodes), *tunnel_judges.shape(nodes)), tuple(untold)


def _each(judge: Judge) -> Callable[[Situation], Iterator[Finding]]:
    def run(at: Situation) -> Iterator[Finding]:
        for node, report in looked_at(at.inventory.nodes):
            yield from judge(node, report)

    return run


def _programs(at: Situation) -> Iterator[Finding]:
    """24, and that Canal's configuration is what its ConfigMap says now."""
    yield from _each(programs)(at)
    looked = looked_at(at.inventory.nodes)
    yield from as_written([node for node, _ in looked], at.inventory.config_maps.get(CANALS_MAP, {}))


def as_written(nodes: Sequence[NodeState], data: Mapping[str, str]) -> Iterator[Finding]:
    """Whose configuration of Canal's is not what the ConfigMap with this ``data`` would write.

    Nodes that were not looked at or have none are left out. Raises Untold for a template that is not JSON.
    """
    template = data.get("cni_network_config", "")
    for node in nodes if template else ():
        if node.report is None or not node.report.canal_config:
            continue
        try:
            found = differences(template, node.report.canal_config)
        except ValueError as odd:
            raise Untold(f"cni_network_config of ConfigMap/kube-system/{CANALS_MAP}: {odd}") from odd
        if found:
            yield finding(
                "TP7346",
                f"Node/{node.facts.name}",
                f"Canal's CNI configuration is not what the ConfigMap says: {'; '.join(found[:3])}",
                "the next pod of Canal writes the ConfigMap's: put what was edited into the chart's values",
                "warning",
            )


def _ports(at: Situation) -> Iterator[Finding]:
    """12: the ports that the target's programs open on the host are theirs, or nobody's."""
    for node, report in looked_at(at.inventory.nodes):
        for (protocol, port), whose in host_ports(at.target).items():
            for one in report.listeners:
                new = (protocol, port) == ("tcp", 8081)
                stranger = one.program not in whose and (one.program or new)
                if (one.protocol, one.port) == (protocol, port) and stranger:
                    yield finding(
                        "TP7324",
                        f"Node/{node.facts.name}",
                        f"{one.program or 'somebody'} listens on {protocol} port {port}, which "
                        f"{whose[0]} of {at.target.release} opens",
                        "move that program to another port before the upgrade",
                    )


def host_ports(target: Release) -> dict[tuple[str, int], tuple[str, ...]]:
    """Protocol and port to the programs that may have it, of Canal in a release."""
    ports: dict[tuple[str, int], tuple[str, ...]] = {("tcp", 9099): ("calico-node",)}
    build = _BUILD.search(target.charts.get("rke2-canal", ""))
    if build is not None and int(build[1].ljust(10, "0")) >= _NEW_PROBE:
        ports["tcp", 8081] = ("flanneld",)
    return ports


def _leases(at: Situation) -> Iterator[Finding]:
    yield from addresses(at)
    yield from _each(leases)(at)


def _ends(at: Situation) -> Iterator[Finding]:
    yield from tunnels(at)
    yield from tunnel_judges.ends([node for node, _ in looked_at(at.inventory.nodes)])


def _shape(at: Situation) -> Iterator[Finding]:
    yield from tunnel_judges.shape([node for node, _ in looked_at(at.inventory.nodes)])


KERNEL_CHECKS = (
    *(
        Check(number, title, _programs if judge is programs else _each(judge))
        for number, title, judge in JUDGES
    ),
    Check(12, "the target's ports are free on the hosts", _ports),
    Check(14, "there are addresses left on every node, and pods behind those that are not", _leases),
    Check(21, "every node says where its tunnel ends: there, and nowhere else, do its peers send to", _ends),
    Check(28, "tunnels are of one number, port and MTU, and fit their underlay", _shape),
)
