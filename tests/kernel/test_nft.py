"""Our table among vandals: what was done to it behind our back is seen, and nothing else is."""

import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kernels import linux_kernel

from towpath.kernel.libnftables import HANDLES, NftContext
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.kernel.nft_text import comment_of
from towpath.kernel.port import KernelRefused
from towpath.model.nft import Hook, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate

pytestmark = pytest.mark.kernel

HOOK = Hook(type="filter", hook="forward", priority=0)
# The second is not what nft prints, the others are.
RULES = ("ct state established,related accept", "meta mark and 0x4000 == 0x4000 accept", "counter drop")
CHAIN = NftChain(name="forward", hook=HOOK, rules=RULES)
SET = NftSet(name="pods", key=("ifname", "ipv4_addr"))
CREATE = NftUpdate(table="towpath", add_sets=(SET,), add_chains=(("forward", HOOK),), set_chains=(CHAIN,))


class Node:
    """A namespace with our table, and a stranger's way to nft."""

    def __init__(self, kernel: LinuxKernel, netns: int) -> None:
        self.kernel, self._netns = kernel, netns
        self._stranger = run_in(netns, NftContext)

    def nft(self, *commands: str) -> None:
        self._stranger.run(*commands)

    def handle(self, rule: int) -> int:
        listing = self._stranger.run("list chain inet towpath forward", flags=HANDLES).decode()
        rules = [line for line in listing.splitlines() if line.startswith("\t\t") and "# handle" in line]
        return int(rules[rule].split()[-1])

    def restarted(self) -> LinuxKernel:
        return run_in(self._netns, LinuxKernel)

    def table(self) -> NftTable:
        found = self.kernel.observe(table="towpath").nft
        assert found is not None
        return found

    def rules(self) -> tuple[str, ...]:
        return self.table().chains["forward"].rules


@pytest.fixture
def node() -> Iterator[Node]:
    with linux_kernel() as (kernel, netns):
        kernel.apply([CREATE])
        yield Node(kernel, netns)


def test_untouched_rules_are_told_as_they_were_written(node: Node) -> None:
    assert node.rules() == RULES


def test_traffic_counters_and_foreign_tables_are_no_drift(node: Node) -> None:
    node.nft("add table inet other", "add chain inet other c { type filter hook input priority 0; }")
    node.nft("add table ip towpath")
    assert node.table() == NftTable(name="towpath", sets={"pods": SET}, chains={"forward": CHAIN})


@pytest.mark.parametrize(
    ("vandalism", "seen"),
    [
        ("insert rule inet towpath forward accept", ("accept", *RULES)),
        (
            'add rule inet towpath forward tcp dport 22 drop comment "mine"',
            (*RULES, 'tcp dport 22 drop comment "mine"'),
        ),
        ("delete rule inet towpath forward handle {1}", (RULES[0], RULES[2])),
        ("flush chain inet towpath forward", ()),
        ("replace rule inet towpath forward handle {2} counter accept", (*RULES[:2], "counter accept")),
        (
            f'replace rule inet towpath forward handle {{2}} counter accept comment "{comment_of(RULES[2])}"',
            (*RULES[:2], f'counter accept comment "{comment_of(RULES[2])}"'),
        ),
        (
            f"delete rule inet towpath forward handle {{0}};"
            f'add rule inet towpath forward {RULES[0]} comment "{comment_of(RULES[0])}"',
            (RULES[1], RULES[2], RULES[0]),
        ),
    ],
    ids=["inserted", "appended", "removed", "flushed", "replaced", "edited under our comment", "moved"],
)
def test_vandalism_shows(node: Node, vandalism: str, seen: tuple[str, ...]) -> None:
    node.nft(vandalism.format(*(node.handle(rule) for rule in range(3))))
    assert node.rules() == seen
    node.kernel.apply([NftUpdate(table="towpath", set_chains=(CHAIN,))])
    assert node.rules() == RULES


def test_foreign_sets_chains_and_elements_show(node: Node) -> None:
    node.nft(
        "add set inet towpath theirs { type ipv4_addr; flags interval; }",
        'add element inet towpath theirs { 192.0.2.3-192.0.2.9 comment "x" }',
        "add set inet towpath passing { type ipv4_addr; flags timeout; }",
        "add element inet towpath passing { 192.0.2.3 timeout 1h }",
        "add chain inet towpath theirs",
        'add element inet towpath pods { "eth9" . 192.0.2.1 }',
    )
    table = node.table()
    assert table.sets["theirs"].elements == {("192.0.2.3-192.0.2.9",): ()}
    assert table.sets["passing"].timeout and not table.sets["passing"].elements
    assert table.chains["theirs"] == NftChain(name="theirs")
    assert table.sets["pods"].elements == {("eth9", IPv4Address("192.0.2.1")): ()}
    node.kernel.apply([NftUpdate(table="towpath", del_chains=("theirs",), del_sets=("theirs", "passing"))])
    assert set(node.table().sets) == {"pods"}


def test_the_table_itself_may_vanish(node: Node) -> None:
    node.nft("flush ruleset")
    assert node.kernel.observe(table="towpath").nft is None
    gone = NftUpdate(table="towpath", del_elements=((SET, {("cali1", IPv4Address("192.0.2.1")): ()}),))
    node.kernel.apply([gone])
    node.kernel.apply([CREATE])
    assert node.rules() == RULES


def test_after_a_restart_rules_are_told_as_nft_prints_them(node: Node) -> None:
    """An agent knows its rules again if they are written as nft prints them; others it writes once more."""
    after = node.restarted()
    observed = after.observe(table="towpath").nft
    assert observed is not None
    comment = comment_of(RULES[1])
    printed = f'meta mark & 0x00004000 == 0x00004000 accept comment "{comment}"'
    assert observed.chains["forward"].rules == (RULES[0], printed, RULES[2])
    after.apply([NftUpdate(table="towpath", set_chains=(CHAIN,))])
    assert after.observe(table="towpath").nft == node.table()
    after.close()


def test_an_error_names_the_command(node: Node) -> None:
    bad = NftUpdate(table="towpath", set_chains=(NftChain(name="forward", rules=("accept", "bogus word")),))
    with pytest.raises(KernelRefused) as caught:
        node.kernel.apply([bad])
    assert caught.value.op.startswith("nft add rule inet towpath forward bogus word")
    assert caught.value.reason == "No symbol type information"
    assert node.rules() == RULES


LARGE = """
import sys
from ipaddress import IPv4Address
from towpath.kernel.linux import LinuxKernel
from towpath.model.nft import Hook, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate

base = int(IPv4Address("10.0.0.0"))
elements = {(f"cali{i >> 8}", IPv4Address(base + i)): () for i in range(25_000)}
verdicts = {(f"cali{i}",): ("goto c7",) for i in range(6_000)}
pods = NftSet(name="pods", key=("ifname", "ipv4_addr"))
verdict = NftSet(name="verdict", key=("ifname",), data=("verdict",))
hook = Hook(type="filter", hook="forward", priority=0)
rules = tuple(f"ip saddr 192.0.2.{i % 256} tcp dport {i} drop" for i in range(200))
chains = {f"c{i}": NftChain(name=f"c{i}", rules=rules) for i in range(10)}
chains["forward"] = NftChain(name="forward", hook=hook, rules=("iifname . ip saddr @pods jump c7",))
kernel = LinuxKernel()
create = NftUpdate(
    table="t", add_sets=(pods, verdict), add_chains=tuple((c.name, c.hook) for c in chains.values()),
    add_elements=((pods, elements), (verdict, verdicts)), set_chains=tuple(chains.values()),
)
kernel.apply([create])
table = kernel.observe(table="t").nft
assert table.sets["pods"].elements == elements
assert table.sets["verdict"].elements == verdicts
assert table.chains == chains
moved = {key: ("accept",) for key in verdicts}
kernel.apply([NftUpdate(
    table="t", del_elements=((verdict, verdicts), (pods, elements)), add_elements=((verdict, moved),),
)])
table = kernel.observe(table="t").nft
assert table.sets["verdict"].elements == moved
assert not table.sets["pods"].elements
print("whole")
"""


@pytest.mark.parametrize("unshare", [["-n"], ["-U", "-r", "-n"]], ids=["this user namespace", "a new one"])
def test_what_exceeds_a_socket_goes_in_parts(unshare: list[str]) -> None:
    command = ["unshare", *unshare, sys.executable, "-c", LARGE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert (done.stdout, done.stderr) == ("whole\n", "")
