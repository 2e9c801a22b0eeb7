"""The second network of ``bench.restart``: macvlan across the nodes, beside the pod network.

The definition is empty, so that each node has a configuration of its own: host-local knows of one node only,
and gives out addresses of that node's part of the range.
"""

import json
import tempfile
from pathlib import Path

import yaml

from bench.restart_faults import Cluster

NETWORK = "default/storage"
_KIND = "network-attachment-definitions.k8s.cni.cncf.io"
_CRDS = Path(__file__).parents[1] / "demo/crds.yaml"


def prepare(cluster: Cluster) -> None:
    """The kind, the definition, and its configuration on every node. Raises FaultFailed."""
    crd = next(one for one in yaml.safe_load_all(_CRDS.read_text()) if one["metadata"]["name"] == _KIND)
    namespace, _, name = NETWORK.partition("/")
    definition = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {},
    }
    for number, node in enumerate(cluster.nodes):
        text = json.dumps(_configuration(name, number))
        cluster.run_on(node, f"echo '{text}' > /etc/cni/net.d/90-{name}.conf")
    _apply(cluster, crd)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{_KIND}", "--timeout=20s")
    _apply(cluster, definition)


def _configuration(name: str, number: int) -> dict[str, object]:
    ranges = [
        [_part("192.168.77.0/24", f"192.168.77.{32 * number + 10}", f"192.168.77.{32 * number + 30}")],
        [_part("fd77::/64", f"fd77::{number + 1}:10", f"fd77::{number + 1}:ff")],
    ]
    ipam = {"type": "host-local", "ranges": ranges}
    return {"cniVersion": "1.0.0", "name": name, "type": "macvlan", "mtu": 1400, "ipam": ipam}


def _part(subnet: str, first: str, last: str) -> dict[str, str]:
    return {"subnet": subnet, "rangeStart": first, "rangeEnd": last}


def _apply(cluster: Cluster, manifest: object) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(manifest, file)
        file.flush()
        cluster.kubectl("apply", "-f", file.name)
