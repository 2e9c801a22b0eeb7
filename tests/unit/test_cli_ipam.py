"""``towpath ipam``'s tables and refusals."""

from typing import Any

import pytest
from click.testing import CliRunner

from towpath.api.core import Pod, PodIP, PodSpec, PodStatus
from towpath.api.ipam_inquiry import Answer, RangeSeen
from towpath.api.meta import ObjectMeta
from towpath.cli.ipam import command
from towpath.cli.ipam_files import addresses_of, leaked_files
from towpath.cli.ipam_show import _table, added_up
from towpath.inventory.node_report import Leases

ANSWERS = {
    "n1": Answer(
        nonce="x",
        ranges=(
            RangeSeen(range="10.42.1.0/24", size=253, used=240, held=2, full_in=7300.0),
            RangeSeen(range="fd00:42:0:1::/64", size=(1 << 64) - 2, used=240),
        ),
        pools=("10.42.0.0/16", "fd00:42::/56"),
        namespaces={"default": 470, "": 10},
    ),
    "n2": Answer(nonce="", error="its agent did not answer"),
}
CIDRS = {"n2": ["10.42.2.0/24"], "n1": ["10.42.1.0/24"]}


def pod(name: str, address: str, **fields: Any) -> Pod:
    spec = PodSpec(node_name="n2", **fields)
    status = PodStatus(phase="Running", pod_ips=[PodIP(address)])
    return Pod(metadata=ObjectMeta(name=name, namespace="kube-system"), spec=spec, status=status)


PODS = [pod("a", "10.42.2.7"), pod("b", "172.16.0.1", host_network=True), pod("c", "10.9.9.9")]


def test_by_node_and_block_and_pool() -> None:
    rows = added_up(ANSWERS, CIDRS, PODS, "node")
    assert [(r["node"], r["family"], r["used"], r["free"], r["percent"], r["source"]) for r in rows] == [
        ("n1", "IPv4", 240, 13, 94.86, "leases"),
        ("n1", "IPv6", 240, (1 << 64) - 242, 0.0, "leases"),
        ("n2", "IPv4", 1, 252, 0.4, "pods"),
    ]
    assert [r["block"] for r in added_up(ANSWERS, CIDRS, PODS, "block")] == [
        "10.42.1.0/24",
        "fd00:42:0:1::/64",
        "10.42.2.0/24",
    ]
    pools = added_up(ANSWERS, CIDRS, PODS, "pool")
    assert [(r["pool"], r["used"], r["size"], r["fullInSeconds"], r["source"]) for r in pools] == [
        ("10.42.0.0/16", 241, 506, 7300.0, "mixed"),
        ("fd00:42::/56", 240, (1 << 64) - 2, None, "leases"),
    ]
    shown = _table(rows, "node").splitlines()
    assert shown[1].split() == ["n1", "IPv4", "253", "240", "2", "0", "0", "13", "95", "%", "2h", "leases"]
    assert shown[2].split() == ["n1", "IPv6", "2^64", "240", "0", "0", "0", "2^64", "<1", "%", "-", "leases"]


def test_by_namespace() -> None:
    rows = added_up(ANSWERS, CIDRS, PODS, "namespace")
    assert rows == [
        {"namespace": "-", "used": 10},
        {"namespace": "default", "used": 470},
        {"namespace": "kube-system", "used": 2},
    ]


def test_what_canal_has_leaked_takes_two_proofs() -> None:
    failed = Pod(status=PodStatus(phase="Failed", pod_ip="10.42.2.8"))
    used = addresses_of([*PODS, pod("d", "fd00:0::5"), failed])
    assert used == {"10.42.2.7": "kube-system/a", "10.9.9.9": "kube-system/c", "fd00::5": "kube-system/d"}
    files = [
        Leases(network="cbr0", total=9, leaked=("10.42.2.7", "10.42.2.8", "fd00::5")),
        Leases(network="k8s-pod-network", total=1, leaked=("fd00::6",)),
    ]
    assert [(p.code, p.object, p.mendable) for p in leaked_files(files, used)] == [
        ("TP4020", "/var/lib/cni/networks/cbr0/10.42.2.8", False),
        ("TP4020", "/var/lib/cni/networks/k8s-pod-network/fd00::6", False),
    ]


@pytest.mark.parametrize("arguments", [["show", "nonsense"], ["release"], ["release", "10.0.0.0/8"]])
def test_what_is_no_address_is_refused(arguments: list[str]) -> None:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert "address" in done.output.lower()
