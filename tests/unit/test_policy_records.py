"""The agent's part of the policy log: what it counts, what it says of addresses, what a record says."""

import asyncio
from ipaddress import ip_address
from typing import Any

import msgspec

from towpath.agent.address_book import AddressBook
from towpath.agent.metrics import Metrics
from towpath.agent.policy_log import PolicyLog
from towpath.agent.policy_records import Where, record
from towpath.api.core import Node, Pod
from towpath.api.policy_record import End, PolicyRecord
from towpath.kernel.nflog import LogMessage, LogSocket, Seen
from towpath.policy.causes import Cause, LogRule, Packet
from towpath.policy.ir import Aspect, Direction

A, B = ip_address("10.42.1.2"), ip_address("10.42.1.3")
SYN = Seen(A, B, 6, 40000, 80)


class OnlyIngressDenies:
    def cause(self, endpoint: str, direction: Direction, packet: Packet) -> Cause | None:
        if endpoint == "Pod/x/gone":
            return None
        return Cause(allowed=direction == "egress", tier="t", policy="P/p", path="spec.ingress[0]", index=0)

    def host_cause(
        self, interface: str, aspect: Aspect, direction: Direction, packet: Packet
    ) -> Cause | None:
        if interface != "eth0" or aspect == "pre-dnat" or packet.peer != A:
            return None
        return Cause(allowed=False, tier="t", policies=(f"P/{aspect}",), host="HostEndpoint/h")

    def logged(self, identity: str) -> LogRule | None:
        return LogRule("t", "P/p", "ingress", "spec.ingress[0]", 0) if identity == "abc" else None


def test_the_side_that_denies_is_named() -> None:
    where = Where("n1", {A: "Pod/x/a", B: "Pod/x/b"}, {})
    one = record(LogMessage("tp-denied", SYN), OnlyIngressDenies(), where, 0.0)
    assert one is not None and (one.direction, one.policy, one.verdict) == ("ingress", "P/p", "")
    assert one.time == "1970-01-01T00:00:00.000Z"
    assert str(one) == "deny tcp Pod/x/a (10.42.1.2:40000) -> Pod/x/b (10.42.1.3:80): spec.ingress[0] of P/p"
    unknown = record(
        LogMessage("tp-denied", SYN), OnlyIngressDenies(), Where("n1", {B: "Pod/x/gone"}, {}), 0.0
    )
    assert unknown is not None and "not known yet" in unknown.because()
    logged = record(LogMessage("tp:P/p spec.ingress[0] #abc", SYN), OnlyIngressDenies(), where, 0.0)
    assert logged is not None and (logged.action, logged.verdict) == ("log", "deny")


def test_a_host_endpoint_is_asked_where_the_kernel_asks_it() -> None:
    links = {2: "eth0", 3: "cali1"}
    where = Where("n1", {}, {}, links)

    def told(hook: int, came_by: int = 0, leaves_by: int = 0) -> str:
        message = LogMessage("tp-denied", SYN, hook=hook, came_by=came_by, leaves_by=leaves_by)
        one = record(message, OnlyIngressDenies(), where, 0.0)
        assert one is not None
        return one.because()

    assert told(0, 2) == "default of tier t at HostEndpoint/h (in force: P/untracked)"
    assert told(1, 2) == "default of tier t at HostEndpoint/h (in force: P/local)"
    assert told(2, 2, 3) == "default of tier t at HostEndpoint/h (in force: P/forwarded)"
    nobody = "no policy denies it by now"
    assert told(1, 3).startswith(nobody)  # a pod's interface
    assert told(1, 9).startswith(nobody)  # an interface that is no more
    assert told(3, 0, 2).startswith(nobody)  # to an address that it lets through
    assert told(-1, 2, 2).startswith(nobody)
    # Pods' policies are not asked before input.
    before = LogMessage("tp-denied", SYN, hook=0, came_by=3)
    told_of = record(before, OnlyIngressDenies(), Where("n1", {B: "Pod/x/b"}, {}, links), 0.0)
    assert told_of is not None and told_of.because().startswith(nobody)


def test_what_others_log_to_our_group_is_not_ours() -> None:
    where = Where("n1", {}, {})
    assert record(LogMessage("other: ", SYN), OnlyIngressDenies(), where, 0.0) is None
    assert record(LogMessage("tp-denied", None), OnlyIngressDenies(), where, 0.0) is None


def test_records_are_small_json() -> None:
    one = PolicyRecord(
        time="t",
        node="n1",
        action="log",
        source=End(address="fd00::1", port=1),
        destination=End(address="::"),
    )
    assert msgspec.json.decode(msgspec.json.encode(one), type=PolicyRecord) == one
    assert b"tier" not in msgspec.json.encode(one)
    assert str(one.source) == "[fd00::1]:1" and one.because() == "no tier decides"


def pod(name: str, address: str, **more: Any) -> Pod:
    status = {"podIP": address, "podIPs": [{"ip": address}], "phase": more.pop("phase", "Running")}
    raw = {"metadata": {"name": name, "namespace": "x"}, "spec": more, "status": status}
    return msgspec.convert(raw, Pod)


async def test_an_address_book_is_made_anew_as_seldom_as_that_is_dear() -> None:
    now, cost = [0.0], [0.1]
    pods = {("x", "a"): pod("a", str(A)), ("x", "host"): pod("host", "172.30.0.11", hostNetwork=True)}
    addresses = [{"type": "InternalIP", "address": "172.30.0.11"}, {"type": "Hostname", "address": "n1"}]
    node = msgspec.convert({"metadata": {"name": "n1"}, "status": {"addresses": addresses}}, Node)

    def nodes() -> dict[tuple[str, str], Node]:
        now[0] += cost[0]
        return {("", "n1"): node}

    book = AddressBook(lambda: pods, nodes, lambda: now[0])
    host = ip_address("172.30.0.11")
    assert await book.names([A, B, host]) == {A: "Pod/x/a", host: "Node/n1"}
    del pods["x", "a"]
    pods["x", "b"] = pod("b", str(A))
    now[0] = 2.0
    assert await book.names([A]) == {A: "Pod/x/a"}  # not again so soon
    now[0], cost[0] = 2.2, 60.0
    assert await book.names([A]) == {A: "Pod/x/b"}
    pods["x", "b"] = pod("b", str(A), phase="Succeeded")
    pods["x", "c"] = pod("c", str(B))
    now[0] = 67.0
    assert await book.names([B]) == {}
    now[0] = 67.3  # never longer than five seconds, whatever it costs
    assert await book.names([A, B]) == {B: "Pod/x/c"}


async def test_numbers_missing_and_a_full_queue_are_counted() -> None:
    metrics = Metrics()
    book = AddressBook(dict, dict, lambda: 0.0)
    log = PolicyLog("n1", 4, lambda: None, dict, book, metrics)

    def lost() -> int:
        return metrics.counters["towpath_policy_log_lost", ()]

    for number in (5, 6, 9):
        log._take(LogMessage("tp-denied", SYN, 0.0, number))
    assert lost() == 2
    log._take(LogMessage("tp-denied", SYN, 0.0, 0xFFFFFFFF))  # long ago: a listener before us
    log._take(LogMessage("tp-denied", SYN, 0.0, 0))
    assert lost() == 2
    for number in range(1, 2001):
        log._take(LogMessage("tp-denied", SYN, 0.0, number))
    assert lost() == 2 + 2000 + 5 - 1000


async def test_a_group_that_is_taken_is_a_finding() -> None:
    other = LogSocket(9)
    log = PolicyLog("n1", 9, lambda: None, dict, AddressBook(dict, dict, lambda: 0.0), Metrics())
    running = asyncio.create_task(log.run())
    try:
        while not log.findings():  # noqa: ASYNC110 (it has nobody to tell)
            await asyncio.sleep(0.01)
        (finding,) = log.findings()
        assert finding.code == "TP5160" and "group 9" in finding.message
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        other.close()
