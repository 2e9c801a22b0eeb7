"""Strips, results and the page; plans and objects."""

import re
from html.parser import HTMLParser
from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe_objects import GOOD, MS, plan, probe
from towpath.cli.exit import FINDING, INCONCLUSIVE, INTERRUPTED
from towpath.cli.probe import exit_code, verdict
from towpath.probe import dns, objects, strips
from towpath.probe.collect import Collection
from towpath.probe.gaps import gaps
from towpath.probe.levels import Level
from towpath.probe.live import lines, whole
from towpath.probe.page import page
from towpath.probe.paths import CROSS_NODE, NODE_PORT, OUTSIDE, SAME_NODE, TO_NODE, Found, Wanted, plans
from towpath.probe.plan import Kind
from towpath.probe.prober_lines import Ended, Slots, Started
from towpath.probe.result import Mark, Result, result
from towpath.probe.samples import INVALID, LOST, pack
from towpath.probe.tally import Tally

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
PROBES = (probe(Kind.UDP, 0), probe(Kind.DENY_TCP, 1), probe(Kind.UDP, 2, path=SAME_NODE, family=6))


def collected(*values: list[int]) -> Collection:
    """What a prober of three probes reported."""
    found = Collection([plan(PROBES, 10)])
    said = [Started(prober="test", starts=dict.fromkeys(range(len(values)), START))]
    for number, slots in enumerate(values):
        chunk = msgspec.to_builtins(pack(number, 0, slots))
        said.append(msgspec.convert({**chunk, "is": "slots"}, Slots))  # type: ignore[arg-type]
    for line in [*said, Ended(prober="test", cpu_s=1.0)]:
        found.take(msgspec.json.encode(line))
    return found


@pytest.fixture
def run() -> Collection:
    """Two seconds; in the second, 120 ms are lost and a denied probe is answered once."""
    udp = [GOOD] * 240 + [LOST] * 24 + [GOOD] * 136
    return collected(udp, [LOST] * 38 + [GOOD] + [LOST], [GOOD] * 200 + [INVALID] * 200)


def outcome(run: Collection, **more: object) -> Result:
    """Judged against its first second."""
    return result(run, START, START + 2 * SECOND, title="A <test>", control_s=1.0, **more)  # type: ignore[arg-type]


def test_a_strip_shows_the_worst_of_each_moment_and_labels_the_gap(run: Collection) -> None:
    first, second, legend = whole(run, START, START + 2 * SECOND, 100)
    assert re.search(r"IPv4 ·{12}█{1,2}\d*", first)
    assert "120ms" in first
    assert "!" in first
    assert "24 lost, gap 120 ms, 1 let through" in first
    assert re.search(r"IPv6 +·{10}░{10} nothing lost", second)
    assert "100 ms" in legend


def test_the_live_strip_slides(run: Collection) -> None:
    shown = lines(run, Tally(START), START, START + 2 * SECOND, 80)
    assert all(len(line) <= 110 for line in shown)
    assert "·" in shown[0]


@given(
    st.lists(st.sampled_from([GOOD, LOST, INVALID]), min_size=1, max_size=40),
    st.lists(st.integers(0, 41), max_size=6),
)
def test_a_tally_is_the_same_however_often_it_was_asked(values: list[int], moments: list[int]) -> None:
    run = collected(values)
    tally, at_once = Tally(START), Tally(START)
    for moment in sorted(moments):
        tally.update(run, START + moment * PROBES[0].period)
    for each in (tally, at_once):
        each.update(run, START + SECOND)
    found = gaps(values)
    longest_ms = max((gap.slots for gap in found), default=0) * PROBES[0].period / 1e6
    lost = values.count(LOST)
    assert at_once.words([0]) == (f"{lost} lost, gap {longest_ms:.0f} ms" if lost else "nothing lost")
    assert tally.words([0]) == at_once.words([0])


def test_a_tally_counts_from_where_the_run_began(run: Collection) -> None:
    tally = Tally(START + SECOND + 260 * MS)
    tally.update(run, START + 2 * SECOND)
    assert tally.words(run.counting()) == "12 lost, gap 60 ms, 1 let through"
    assert tally.words([1, 2, 7]) == "nothing lost, 1 let through"


def test_overlapping_gaps_of_several_probes_are_one() -> None:
    found = strips.merged([strips.Seen(5, 9, 2), strips.Seen(0, 6, 1), strips.Seen(20, 21, 1)])
    assert found == [strips.Seen(0, 9, 3), strips.Seen(20, 21, 1)]


def test_the_result_is_as_bad_as_its_worst_path(run: Collection) -> None:
    judged = outcome(run)
    assert judged.judgement.level is Level.UNKNOWN  # the third probe was stalled for its half
    fine = outcome(collected([GOOD] * 400, [LOST] * 40, [GOOD] * 400))
    assert fine.judgement.level is Level.H0
    assert "H0: 0 of" in verdict(fine)
    bad = outcome(collected([GOOD] * 300 + [LOST] * 50 + [GOOD] * 50, [LOST] * 40, [GOOD] * 400))
    assert bad.judgement.level is Level.H2
    assert bad.paths[0].gaps[0].ms == 250
    assert msgspec.json.decode(msgspec.json.encode(bad), type=Result) == bad


class _Page(HTMLParser):
    """Every tag is closed, and nothing is fetched."""

    VOID = ("meta", "br", "rect", "path", "polyline", "link", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_says_the_verdict_first(run: Collection) -> None:
    marks = (Mark(at_ms=900.0, what="agent <restarted>"),)
    run.leave_out(2, "never answered")
    text = page(outcome(run, marks=marks))
    parsed = _Page()
    parsed.feed(text)
    assert not parsed.open
    assert all(value.startswith("#path-") for value in parsed.fetched)
    assert "http" not in text.replace("http-equiv", "")
    order = ["A <test>", "Disruptive", "All paths", "How to read a strip", "Path by path", "What is measured"]
    assert [parsed.text.index(words) for words in order] == sorted(parsed.text.index(w) for w in order)
    assert "120 ms" in parsed.text
    assert "(IPv4): udp 24 lost, deny-tcp 1 let through, from 1.2 s on" in parsed.text
    assert "agent <restarted>" in parsed.text
    assert "never answered" in parsed.text


def test_lines_that_are_none_of_ours_are_counted_and_harm_nothing(run: Collection) -> None:
    before = [list(s.values) for _, s in run.parts()]
    for junk in (b"", b"Traceback", b'{"is":"slots","probe":99,"first":0,"data":""}', b'{"is":"what"}'):
        run.take(junk)
    assert run.damaged == 4
    assert [list(s.values) for _, s in run.parts()] == before


@given(st.binary(max_size=80))
def test_no_line_raises(line: bytes) -> None:
    collected([GOOD], [LOST], [GOOD]).take(line)


FOUND = Found(
    targets={"a": ("10.0.0.1", "fd00::1"), "b": ("10.0.1.1", "fd00:1::1")},
    nodes={"a": ("192.0.2.1",), "b": ("192.0.2.2",)},
    service=("10.43.0.9",),
    node_ports={"7001/TCP": 30001, "7001/UDP": 30002},
    host_targets=("a", "b"),
)


def test_without_an_outside_host_other_nodes_are_the_outside() -> None:
    made = plans(FOUND, Wanted(origins=("a",), seconds=5))
    asked = {(p.path, p.kind) for one in made.values() for p in one.probes}
    assert (TO_NODE, Kind.CONNECT) in asked
    assert not any(path in (OUTSIDE, NODE_PORT) for path, _ in asked)
    assert set(made) == {("pod", "a"), ("node", "a")}
    numbers = [p.number for one in made.values() for p in one.probes]
    assert sorted(numbers) == list(range(len(numbers)))


def test_one_node_alone_has_no_cross_node_path() -> None:
    alone = msgspec.structs.replace(FOUND, targets={"a": FOUND.targets["a"]})
    asked = {p.path for one in plans(alone, Wanted(origins=("a",), seconds=5)).values() for p in one.probes}
    assert CROSS_NODE not in asked
    assert SAME_NODE in asked
    with pytest.raises(ValueError, match="nothing to probe"):
        plans(Found(targets={}, nodes={}), Wanted(origins=(), seconds=5))


def test_intervals_stretch() -> None:
    wanted = Wanted(origins=("a",), seconds=5, slower=2.0, kinds=(Kind.UDP,), families=(4,))
    assert {p.period for one in plans(FOUND, wanted).values() for p in one.probes} == {10 * MS}


def test_everything_of_a_run_bears_its_name() -> None:
    run = objects.Run(name="0a1b", expires="2026-01-01T00:00:00Z", image="i")
    made = [
        objects.namespace(run),
        objects.targets(run),
        objects.host_targets(run),
        objects.service(run),
        *objects.policies(run, ("198.51.100.10", "2001:db8::1")),
        objects.prober(run, "n1", plan(PROBES, 5), host_network=True),
    ]
    for one in made:
        assert one["metadata"]["labels"][objects.LABEL] == "0a1b"
        assert one["metadata"].get("namespace", run.namespace) == run.namespace
    opened = [
        port["port"]
        for policy in made[4:6]
        for rule in policy["spec"].get("ingress", [])
        for port in rule["ports"]
    ]
    assert opened == [7001, 7001, 7053]


@given(st.integers(0, 70000), st.sampled_from([4, 6]))
def test_a_question_is_answered_with_its_own_number(number: int, family: int) -> None:
    asked = dns.query(number, "kubernetes.default.svc.cluster.local", family)
    answer = dns.respond(asked, IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
    assert dns.answers(answer, number)
    assert not dns.answers(answer, number + 1)
    assert not dns.answers(asked, number)
    assert answer.endswith(
        IPv4Address("192.0.2.1").packed if family == 4 else IPv6Address("2001:db8::1").packed
    )


@given(st.binary(max_size=60))
def test_the_resolver_bears_any_message(message: bytes) -> None:
    dns.respond(message, IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
    dns.answers(message, 0)


def test_exit_codes() -> None:
    assert exit_code(Level.H0, Level.H0, interrupted=False) == 0
    assert exit_code(Level.H1, Level.H0, interrupted=False) == FINDING
    assert exit_code(Level.H1, Level.H2, interrupted=False) == 0
    assert exit_code(Level.UNKNOWN, Level.H2, interrupted=False) == INCONCLUSIVE
    assert exit_code(Level.H0, Level.H0, interrupted=True) == INTERRUPTED
