"""What gates make of probes and of what was found on a node."""

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import node_reports as reports
from probe_objects import GOOD, probe, series
from towpath.inventory.cluster import NodeState
from towpath.inventory.components import NodeFacts
from towpath.inventory.node_report import Churn, Flow, NodeReport
from towpath.node_reader import counters
from towpath.node_reader.host import Host
from towpath.node_reader.listing import fingerprints, tables
from towpath.probe.paths import SERVICE, Found
from towpath.probe.plan import Kind, Plan, Probe
from towpath.probe.samples import INVALID, LOST, Series
from towpath.upgrade import gates_node, node_reading, probing
from towpath.upgrade.evict import _evictable
from towpath.upgrade.plan import Measure

H0 = Measure(image="x", python=("python3",), level="H0")
SECOND = 1_000_000_000


def judged(measure: Measure, *parts: tuple[Probe, Series]) -> tuple[str, str]:
    found = probing.verdict(parts, parts, 0, 10 * SECOND, measure)
    return found.state, found.why


def test_the_level_wanted_decides() -> None:
    whole = probe(), series([GOOD] * 200)
    lossy = probe(), series([GOOD] * 100 + [LOST] * 10 + [GOOD] * 100)
    assert judged(H0, whole)[0] == "pass"
    state, why = judged(H0, lossy)
    assert (state, "longest gap 50 ms" in why) == ("fail", True), why
    assert judged(replace(H0, level="H1"), lossy)[0] == "pass"
    long = probe(), series([GOOD] * 100 + [LOST] * 100 + [GOOD] * 100)
    assert judged(replace(H0, level="H1"), long)[0] == "fail"
    assert judged(replace(H0, level="H2", budget_ms=600), long)[0] == "pass"
    assert judged(replace(H0, level="H2", budget_ms=400), long)[0] == "fail"


def test_what_is_let_through_fails_every_level() -> None:
    opened = probe(Kind.DENY_TCP), series([LOST] * 50 + [GOOD] + [LOST] * 50, Kind.DENY_TCP)
    state, why = judged(replace(H0, level="H2", budget_ms=9e9), opened)
    assert (state, "denied probes were answered" in why) == ("fail", True), why


def test_blind_probers_pass_nothing_and_hide_nothing() -> None:
    blind = probe(path="a"), series([INVALID] * 5 + [GOOD] * 95)
    whole = probe(number=1, path="b"), series([GOOD] * 100)
    assert judged(H0, blind)[0] == "untold"
    assert judged(H0, blind, whole)[0] == "untold"
    assert judged(H0)[0] == "untold"
    lossy = probe(number=2, path="c"), series([GOOD] * 100 + [LOST] * 3 + [GOOD] * 100)
    assert judged(H0, blind, lossy)[0] == "fail"


def test_strips_are_kept_for_the_report() -> None:
    part = probe(), series([GOOD] * 1000 + [LOST] * 200 + [GOOD] * 800)
    (path,) = probing.verdict([part], [], 0, 10 * SECOND, H0).paths
    assert (path.sent, path.lost, path.gap_ms, path.level) == (2000, 200, 1000.0, "H2")
    assert path.strip.count("█") == 8 and len(path.strip) == 80


def test_which_probes_touch_a_node() -> None:
    found = Found(targets={"n1": ("10.42.0.2",), "n2": ("10.42.1.2",)}, nodes={"n1": ("192.0.2.1",)})
    plans = [
        Plan(
            prober="pod n2",
            seconds=1,
            probes=(
                probe(number=1, address="10.42.0.2"),
                probe(number=2, address="10.42.1.2"),
                probe(number=3, address="10.43.0.9", path=SERVICE),
                probe(number=4, address="192.0.2.1"),
            ),
        ),
        Plan(prober="node n1", seconds=1, probes=(probe(number=5, address="198.51.100.1"),)),
    ]
    assert probing.touches(plans, found, "n1") == {1, 3, 4, 5}
    assert probing.touches(plans, found, "n2") == {1, 2, 3, 4}


def state(number: int, report: NodeReport | None) -> NodeState:
    facts = NodeFacts(f"n{number}", "v1", True, "", "", "", "", frozenset())
    notes = {
        "kube-subnet-manager": "true",
        "public-ip": f"192.0.2.{number}",
        "backend-data": f'{{"VNI":1,"VtepMAC":"{reports.mac(number)}"}}',
    }
    return NodeState(facts, False, True, (f"10.42.{number}.0/24",), notes, 0, report)


def looked_at(report: NodeReport | None, *skipped: int) -> tuple[str, str]:
    states = [state(1, report), state(2, reports.sound(2)), state(3, None)]
    found = gates_node.verdict("n1", states, frozenset(skipped))
    return found.state, found.why


def test_a_nodes_own_state_after_its_turn() -> None:
    sound = reports.sound(1)
    assert looked_at(sound)[0] == "pass"
    assert looked_at(None)[0] == "untold"
    gone = replace(sound, postrouting=())
    assert looked_at(gone)[0] == "fail" and "TP7330" in looked_at(gone)[1]
    assert looked_at(gone, 20)[0] == "pass"
    assert looked_at(replace(sound, churn=None))[0] == "pass"
    often = Churn(seconds=10, samples=10, changed={"ip nat FLANNEL-POSTRTG": 2})
    assert "TP7336" in looked_at(replace(sound, churn=often))[1]
    other = replace(sound.tunnels[0], mac="02:00:00:00:99:99")
    assert "TP7332" in looked_at(replace(sound, tunnels=(other,)))[1]
    assert looked_at(replace(sound, problems=("iptables: nowhere",)))[0] == "untold"
    states = [state(1, sound), state(2, replace(reports.sound(2), tunnels=(stale(),)))]
    assert "TP7333" in gates_node.verdict("n1", states, frozenset()).why


def stale() -> object:
    """The peer still has an entry of before."""
    return replace(reports.sound(2).tunnels[0], fdb={"192.0.2.1": "02:00:00:00:99:99"})


def test_probes_do_not_hinder_a_drain() -> None:
    pod = {"metadata": {"name": "pod-n1", "namespace": "x", "labels": {"probe.towpath.dev/run": "a"}}}
    assert not _evictable(pod)


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (b"", "said nothing"),
        (b"Traceback\nImportError: no towpath", "no towpath"),
        (b"e30=", "said nothing"),
    ],
)
def test_a_reader_that_says_nothing(log: bytes, why: str) -> None:
    found = node_reading.parse(log)
    assert found.report is None and why in found.why


LISTED = """table ip nat { # handle 1
\tchain FLANNEL-POSTRTG { # handle 1
\t\tip saddr 10.42.0.0/16 ip daddr 10.42.1.0/24  counter return # handle 4
\t\tip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4  counter masquerade fully-random # handle 5
\t}

\tchain POSTROUTING { # handle 2
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\t counter comment "flanneld masq" jump FLANNEL-POSTRTG # handle 3
\t}
}
"""


def test_rules_of_nftables_read_like_those_of_iptables() -> None:
    table = tables(LISTED)["ip", "nat"]
    assert table.chains == {"FLANNEL-POSTRTG": "-", "POSTROUTING": "ACCEPT"}
    assert [rule.target for rule in table.rules] == ["RETURN", "MASQUERADE", "FLANNEL-POSTRTG"]
    assert table.of("POSTROUTING")[0].comments == ("flanneld masq",)
    same = fingerprints(LISTED)
    again = fingerprints(LISTED.replace("handle 5", "handle 9"))
    assert {name for name in same if same[name] != again[name]} == {"ip nat FLANNEL-POSTRTG"}


def test_a_host_is_read_where_it_is_mounted(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    put("etc/os-release", 'ID=rhel\nVERSION_ID="10.0"\nNAME=x\n')
    put("lib/modules/6.12/modules.dep", "kernel/drivers/net/vxlan/vxlan.ko.xz: kernel/udp_tunnel.ko\n")
    put("lib/modules/6.12/modules.builtin", "kernel/net/netfilter/nf-tables.ko\n")
    put(
        "etc/NetworkManager/conf.d/a.conf",
        "[keyfile]\nunmanaged-devices=interface-name:cali*;interface-name:x\n",
    )
    (tmp_path / "sys/fs/cgroup/system.slice/firewalld.service").mkdir(parents=True)
    put("opt/cni/bin/calico", "program")
    put("proc/modules", "xt_comment 1 0 - Live 0\n")
    host = Host(tmp_path, tmp_path / "proc")
    assert host.release() == {"ID": "rhel", "VERSION_ID": "10.0"}
    found = host.modules("6.12")
    assert (found["vxlan"], found["nf_tables"], found["xt_comment"]) == ("available", "builtin", "loaded")
    assert found["xt_MASQUERADE"] == "missing"
    assert host.modules("6.13") == {"xt_comment": "loaded"}
    assert host.services() == ("firewalld",)
    assert host.unmanaged() == ("interface-name:cali*", "interface-name:x")
    assert list(host.hashes("/opt/cni/bin")) == ["/opt/cni/bin/calico"]
    assert msgspec.json.decode(msgspec.json.encode(reports.sound(1)), type=NodeReport) == reports.sound(1)


def test_counters_of_the_kernel() -> None:
    snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin OutSegs RetransSegs InErrs\nTcp: 200 900 7 0\n"
    assert counters.tcp(snmp) == (900, 7) and counters.tcp("") == (0, 0)
    head = "Inter-|   Receive\n face |bytes\n"
    lines = "  lo: 5 1 0 9 0 0 0 0 5 1 0 9 0 0 0 0\n" + "flannel.1: 50 1 0 2 0 0 0 0 70 1 0 3 0 0 0 0\n"
    assert counters.devices(head + lines) == (5, 120)
    stat = "entries  searched insert_failed drop early_drop\n0a 00 01 10 00\n0a 00 00 01 02\n"
    assert counters.conntrack(stat) == 1 + 16 + 1 + 2 and counters.conntrack("") == 0
    before, after = counters.Counters(10, 5, 3, 100), counters.Counters(30, 4, 3, 900)
    assert before.until(after, 2.04) == Flow(seconds=2.0, segments=20, resent=0, dropped=0, tunnel_bytes=800)


def test_counters_of_this_machine() -> None:
    mine = Host(Path("/")).counters()
    assert mine.segments >= 0 and Host(Path("/")).counters().tunnel_bytes >= mine.tunnel_bytes
