"""host-local's files on nodes that Towpath does not run on yet: what Canal has leaked.

The same two proofs as the agent's: no interface of the node stands behind the address (a short-lived pod
looks), and by the API server no pod has it. There is no grace period, so a pod that begins right now can look
like that: what a second look finds as well is leaked.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from towpath.api.core import Pod
from towpath.api.ipam_inquiry import ProblemSeen
from towpath.cli.cluster import ClusterOptions
from towpath.cli.nodes import NodeOptions, reading_for
from towpath.cli.output import progress, progress_done
from towpath.inventory.node_report import Leases
from towpath.kube.client import Client
from towpath.upgrade.node_reading import read_nodes

_FOLDER = "/var/lib/cni/networks"
_OVER = ("Succeeded", "Failed")


async def read_files(
    client: Client, options: ClusterOptions, nodes: NodeOptions, names: Iterable[str], pods: Iterable[Pod]
) -> tuple[dict[str, tuple[ProblemSeen, ...]], dict[str, str]]:
    """By node what is leaked; and which nodes could not be read, and why."""
    reading = await reading_for(client, options, nodes)
    answers = await read_nodes(client, names, reading, progress)
    progress_done()
    used = addresses_of(pods)
    found = {
        name: leaked_files(answer.report.leases, used)
        for name, answer in answers.items()
        if answer.report is not None
    }
    return found, {name: answer.why for name, answer in answers.items() if answer.report is None}


def addresses_of(pods: Iterable[Pod]) -> Mapping[str, str]:
    """Every address that a pod has which is not over, in its one way of being written, and whose it is."""
    found = {}
    for pod in pods:
        if pod.spec.host_network or pod.status.phase in _OVER:
            continue
        for text in {pod.status.pod_ip, *(one.ip for one in pod.status.pod_ips or ())} - {""}:
            try:
                found[str(ip_address(text))] = f"{pod.metadata.namespace}/{pod.metadata.name}"
            except ValueError:
                continue
    return found


def leaked_files(leases: Iterable[Leases], used: Mapping[str, str]) -> tuple[ProblemSeen, ...]:
    """One finding for each file that both proofs are against."""
    return tuple(
        ProblemSeen(
            code="TP4020",
            object=f"{_FOLDER}/{one.network}/{text}",
            message=f"{text} is leased to a container that has no interface, and no pod has it",
            fix=f"if a second check says so too, on the node: rm {_FOLDER}/{one.network}/{text}",
            severity="warning",
            addresses=(text,),
        )
        for one in leases
        for text in one.leaked
        if text not in used
    )
