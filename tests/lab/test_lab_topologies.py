"""Other shapes than three dual-stack nodes: one family, host-gw, segments with DirectRouting."""

import json
from pathlib import Path

import pytest
from lab_objects import eventually, failures, get, lab_with_pods, towpath

from towpath.lab.client import LabClient

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("runtime_dir")]


def routes(client: LabClient, node: str) -> str:
    return towpath("exec", "--name", client.name, node, "--", "ip", "route").stdout


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_one_family(family: str) -> None:
    with lab_with_pods(f"only-{family}", "--nodes", "2", f"--{family}") as (client, kubectl, pods):
        for pod in pods:
            (address,) = pod["status"]["podIPs"]
            assert (":" in address["ip"]) is (family == "ipv6")
        eventually(lambda: not failures(client, pods))
        (service,) = get(kubectl, "services")["items"]
        assert len(service["spec"]["clusterIPs"]) == 1


def test_segments_meet_at_the_router_and_direct_routing_knows_its_own(tmp_path: Path) -> None:
    nodes = [{"name": "a1"}, {"name": "a2"}, {"name": "b1", "segment": 1, "labels": {"zone": "b"}}]
    file = tmp_path / "segments.yaml"
    file.write_text(json.dumps({"direct_routing": True, "mtu": 9000, "nodes": nodes}))
    with lab_with_pods("segments", "--topology", str(file)) as (client, kubectl, pods):
        eventually(lambda: not failures(client, pods))
        assert get(kubectl, "node", "b1")["metadata"]["labels"]["zone"] == "b"
        cidrs = {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in get(kubectl, "nodes")["items"]}
        table = routes(client, "a1")
        assert f"{cidrs['a2']} via 172.30.0.12 dev eth0" in table
        assert f"{cidrs['b1']} via {cidrs['b1'].split('/')[0]} dev flannel.1 onlink" in table
        link = towpath("exec", "--name", client.name, pods[0]["metadata"]["name"], "--", "ip", "link").stdout
        assert "mtu 8930" in link  # the smaller of the two families' tunnels


def test_host_gw(tmp_path: Path) -> None:
    file = tmp_path / "host-gw.yaml"
    file.write_text("backend: host-gw\n")
    with lab_with_pods("host-gw", "--topology", str(file), "--nodes", "2") as (client, _, pods):
        eventually(lambda: not failures(client, pods))
        assert "via 172.30.0.12 dev eth0" in routes(client, "n1")
        assert "flannel" not in towpath("exec", "--name", client.name, "n1", "--", "ip", "link").stdout
