"""Packets in the real kernel become records that name the rule that decided."""

import select
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial

import pytest
from policed_node import A, B, PolicedNode, calico_policy, network_policy
from wired_node import OUTSIDE4, OUTSIDE6, dropped, reach

from patience import PATIENT
from towpath.agent.policy_records import Where, record
from towpath.api.policy_record import PolicyRecord
from towpath.desired.ruleset import TABLE
from towpath.kernel.netns import run_in
from towpath.kernel.nflog import LogMessage, LogSocket
from towpath.kernel.nft_counters import RuleCounters
from towpath.kernel.port import KernelRefused
from towpath.model.policy import DENIED, Sampling

pytestmark = pytest.mark.kernel
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


# Of an IPv4 echo request with number 1 and sequence 1; that of ICMPv6 is the kernel's.
ICMP_CHECKSUM = (0xFFFF - 0x0802).to_bytes(2, "big")


class Ear:
    def __init__(self, node: PolicedNode) -> None:
        self.node = node
        self.socket = run_in(node.netns, lambda: LogSocket(node.sampling.group))

    def messages(self, seconds: float = PATIENT, until: int = 1) -> list[LogMessage]:
        found: list[LogMessage] = []
        deadline = time.monotonic() + seconds
        while len(found) < until and (left := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                found += self.socket.read() or []
        return found

    def records(self, until: int = 1) -> list[PolicyRecord]:
        where = Where("n1", self.node.local, {})
        found = (record(m, self.node.engine, where, time.time()) for m in self.messages(until=until))
        return [one for one in found if one is not None]


@pytest.fixture
def node() -> Iterator[PolicedNode]:
    made = PolicedNode()
    yield made
    made.close()


@pytest.fixture
def ear(node: PolicedNode) -> Iterator[Ear]:
    made = Ear(node)
    yield made
    made.socket.close()


@BOTH
def test_kubernetes_default_deny(node: PolicedNode, ear: Ear, family: int) -> None:
    node.enforce(network_policy("shut", "b"))
    assert dropped(node.pods["a"], node.pods["b"], B[family], 80)
    (one,) = ear.records()
    assert (one.action, one.direction, one.protocol) == ("deny", "ingress", "tcp")
    assert (one.source.object, one.destination.object) == ("Pod/default/a", "Pod/default/b")
    assert (one.source.address, one.destination.address) == (A[family], B[family])
    assert one.destination.port == 80 and one.source.port
    assert (one.tier, one.policy, one.policies) == ("default", "", ("NetworkPolicy/default/shut",))
    assert abs(time.time() - datetime.fromisoformat(one.time).timestamp()) < 300
    assert one.because() == "default of tier default (in force: NetworkPolicy/default/shut)"


@BOTH
def test_an_explicit_deny_names_its_rule(node: PolicedNode, ear: Ear, family: int) -> None:
    allow = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}
    deny = {"action": "Deny", "protocol": "TCP", "destination": {"ports": [81]}}
    node.enforce(calico_policy("no81", "a", types=["Egress"], egress=[allow, deny, {"action": "Allow"}]))
    assert reach(node.pods["a"], node.pods["b"], B[family], 80)
    assert dropped(node.pods["a"], node.pods["b"], B[family], 81)
    (one,) = ear.records()
    assert (one.direction, one.policy, one.rule, one.rule_index) == (
        "egress",
        "NetworkPolicy.projectcalico.org/default/no81",
        "spec.egress[1]",
        1,
    )
    outside = (OUTSIDE4, OUTSIDE6)[family]
    assert dropped(node.pods["a"], node.world, outside, 81)
    (two,) = ear.records()
    assert (two.destination.address, two.destination.object, two.rule) == (outside, "", "spec.egress[1]")


@BOTH
def test_a_tiers_default_that_denies(node: PolicedNode, ear: Ear, family: int) -> None:
    tier = {"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "sec"}}
    tier["spec"] = {"order": 10, "defaultAction": "Deny"}
    rule = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}
    named = calico_policy("sec.few", "b", tier="sec", types=["Ingress"], ingress=[rule])
    node.enforce(tier, named)
    assert dropped(node.pods["a"], node.pods["b"], B[family], 81)
    (one,) = ear.records()
    assert (one.tier, one.policy, one.policies) == (
        "sec",
        "",
        ("NetworkPolicy.projectcalico.org/default/sec.few",),
    )


@BOTH
def test_log_and_then_allow(node: PolicedNode, ear: Ear, family: int) -> None:
    long = "l" * 200  # no prefix of the kernel's holds that
    rules = [{"action": "Log"}, {"action": "Allow"}]
    node.enforce(calico_policy(long, "b", types=["Ingress"], ingress=rules))
    assert reach(node.pods["a"], node.pods["b"], B[family], 80)
    (one,) = ear.records()
    assert (one.action, one.direction, one.verdict) == ("log", "ingress", "allow")
    assert (one.policy, one.rule, one.rule_index) == (
        f"NetworkPolicy.projectcalico.org/default/{long}",
        "spec.ingress[0]",
        0,
    )


def test_what_was_logged_before_the_rule_was_gone_says_so(node: PolicedNode, ear: Ear) -> None:
    rules = [{"action": "Log"}, {"action": "Deny"}]
    node.enforce(calico_policy("p", "b", types=["Ingress"], ingress=rules))
    assert dropped(node.pods["a"], node.pods["b"], B[0], 80)
    node.enforce()
    found = {one.action: one for one in ear.records(until=2)}
    assert "default/p spec.ingress" in found["log"].reason
    assert found["deny"].because().startswith("no policy denies it by now")


def test_pings_have_types_and_no_ports(node: PolicedNode, ear: Ear) -> None:
    node.enforce(network_policy("shut", "b"))
    for kind, protocol, echo, address in (
        (socket.AF_INET, socket.IPPROTO_ICMP, 8, B[0]),
        (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, B[1]),
    ):
        made = (kind, socket.SOCK_RAW, protocol)
        with run_in(node.pods["a"], partial(socket.socket, *made)) as client:
            client.sendto(bytes((echo, 0)) + ICMP_CHECKSUM + b"\0\1\0\1", (address, 0))
    four, six = ear.records(until=2)
    assert (four.what(), six.what()) == ("icmp 8/0", "icmpv6 128/0")
    assert four.source.port is None and str(four.source) == "Pod/default/a (10.42.1.2)"


def test_a_flood_makes_few_messages_and_the_rest_is_counted() -> None:
    node = PolicedNode(Sampling(group=77, denials=5))
    ear = Ear(node)
    counters = run_in(node.netns, RuleCounters)
    try:
        node.enforce(network_policy("shut", "b"))
        client = run_in(node.pods["a"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        begun = time.monotonic()
        with client:
            for number in range(5000):
                client.sendto(b"x", (B[0], 1 + number % 60000))
        took = time.monotonic() - begun
        sampled, denied = counters.packets(TABLE, DENIED)
        assert sampled is not None
        assert 50 <= sampled <= 80 + 5 * took
        assert denied == 5000
        found = ear.messages(until=sampled)
        assert len(found + ear.messages(seconds=0.1)) == sampled
        assert [m.sequence for m in found] == list(range(len(found)))
    finally:
        counters.close()
        ear.socket.close()
        node.close()


def test_a_logging_rules_flood_is_limited_too(node: PolicedNode, ear: Ear) -> None:
    node.enforce(calico_policy("p", "b", types=["Ingress"], ingress=[{"action": "Log"}, {"action": "Allow"}]))
    client = run_in(node.pods["a"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    begun = time.monotonic()
    with client:
        for number in range(5000):
            client.sendto(b"x", (B[0], 1 + number % 60000))
    most = 400 + 100 * (time.monotonic() - begun)
    found = ear.messages(until=100)
    assert 100 <= len(found + ear.messages(seconds=1, until=5000)) <= most


def test_overruns_are_counted_and_numbers_tell_what_is_lost(node: PolicedNode, ear: Ear) -> None:
    node.sh(
        node.netns,
        "nft add table inet other; nft add chain inet other passing "
        "'{ type filter hook forward priority -10; }'; "
        "nft add rule inet other passing log prefix '\"other\"' group 4",
    )
    client = run_in(node.pods["a"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with client:
        for number in range(20000):
            client.sendto(b"x" * 100, (B[0], 1 + number % 60000))
        found = ear.messages(seconds=1.5, until=20000)
        assert ear.socket.overruns >= 1 and len(found) < 20000
        client.sendto(b"x", (B[0], 9))
        sequence = 0
        while sequence < 20000:  # what was on its way comes before
            (*_, last) = ear.messages()
            sequence = last.sequence


def test_a_group_has_one_listener(node: PolicedNode, ear: Ear) -> None:
    with pytest.raises(KernelRefused, match="policy_log_group"):
        run_in(node.netns, lambda: LogSocket(node.sampling.group))
