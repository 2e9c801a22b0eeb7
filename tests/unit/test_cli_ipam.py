"""``towpath ipam``'s tables and refusals."""

from ipaddress import ip_network
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

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
CIDRS = {"n2": [ip_network("10.42.2.0/24")], "n1": [ip_network("10.42.1.0/24")]}


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


def test_blocks_are_shown_with_what_is_borrowed_and_pools_with_what_nobody_has() -> None:
    main = RangeSeen(range="10.42.0.0/24", pool="main", size=255, foreign=3, reserved=8)
    answers = {
        "n1": Answer(
            nonce="x",
            ranges=(
                RangeSeen(range="10.42.0.0/28", size=15, used=10, held=1),
                RangeSeen(range="10.42.0.16/28", size=1, used=1),
            ),
            shared=(replace(main, full_in=7300.0),),
            pools=("10.42.0.0/16",),
        ),
        "n2": Answer(
            nonce="x",
            ranges=(RangeSeen(range="10.42.0.16/28", size=15, used=15),),
            shared=(replace(main, full_in=9000.0),),
        ),
        "n3": Answer(nonce="", error="its agent did not answer"),
        "old": Answer(nonce="x", ranges=(RangeSeen(range="10.42.9.0/24", size=253, used=4),)),
    }
    cidrs = {"n3": [ip_network("10.42.0.32/32")]}
    pods = [replace(pod("a", "10.42.0.32"), spec=PodSpec(node_name="n3"))]
    rows = added_up(answers, cidrs, pods, "block")
    assert [(r["block"], r["node"], r["size"], r["used"], r["free"], r["source"]) for r in rows] == [
        ("10.42.0.0/28", "n1", 15, 10, 5, "leases"),
        ("10.42.0.16/28", "n1", 1, 1, 0, "leases"),
        ("10.42.0.16/28", "n2", 15, 15, 0, "leases"),
        ("10.42.0.32/32", "n3", 1, 1, 0, "pods"),
        ("10.42.9.0/24", "old", 253, 4, 249, "leases"),
    ]
    figures = ("pool", "size", "used", "foreign", "reserved", "free", "fullInSeconds", "source")
    rows = added_up(answers, cidrs, pods, "pool")
    assert [tuple(r[key] for key in figures) for r in rows] == [
        ("main", 255, 27, 3, 8, 217, 7300.0, "mixed"),
        ("10.42.0.0/16", 253, 4, 0, 0, 249, None, "leases"),
    ]
    assert [(r["node"], r["size"], r["used"]) for r in added_up(answers, cidrs, pods, "node")] == [
        ("n1", 16, 11),
        ("n2", 15, 15),
        ("n3", 1, 1),
        ("old", 253, 4),
    ]


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
