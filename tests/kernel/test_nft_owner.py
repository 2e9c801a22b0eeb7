"""The table's owner: others' flushes pass it by, it outlives the owner, and the next one takes it over."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from errno import EPERM
from ipaddress import IPv4Address

import pytest
from kernels import linux_kernel
from msgspec.structs import replace

from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.kernel.nft_owner import ownable
from towpath.kernel.port import KernelRefused
from towpath.model.nft import Hook, NftChain, NftSet, NftTable
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

pytestmark = pytest.mark.kernel

HOOK = Hook(type="filter", hook="forward", priority=0)
INPUT = Hook(type="filter", hook="input", priority=0)
NATS = Hook(type="nat", hook="postrouting", priority=110)
PODS = NftSet(name="pods", key=("ifname", "ipv4_addr"), elements={("cali0", IPv4Address("10.42.0.2")): ()})
CHAINS = {
    "forward": NftChain(name="forward", hook=HOOK, rules=("iifname . ip saddr @pods accept", "drop")),
    "nats": NftChain(name="nats", hook=NATS, rules=("masquerade fully-random",)),
}
FREE = NftTable(name="towpath", sets={"pods": PODS}, chains=CHAINS)
OWNED = replace(FREE, owner="own")


class Node:
    """A namespace, its agents' kernels, and a stranger's commands."""

    def __init__(self, netns: int) -> None:
        self.netns = netns

    @contextmanager
    def agent(self) -> Iterator["Agent"]:
        with closing(run_in(self.netns, LinuxKernel)) as kernel:
            yield Agent(kernel)

    def sh(self, command: str) -> subprocess.CompletedProcess[str]:
        words = command.split()
        return run_in(self.netns, lambda: subprocess.run(words, capture_output=True, text=True))

    def tables(self) -> list[str]:
        return self.sh("nft list tables").stdout.splitlines()


class Agent:
    def __init__(self, kernel: LinuxKernel) -> None:
        self.kernel = kernel

    def table(self) -> NftTable | None:
        return self.kernel.observe(table="towpath").nft

    def bring(self, wanted: NftTable) -> list[str]:
        """Reconcile; what was done."""
        ops = diff(NetState(nft=self.table()), NetState(nft=wanted), Scope())
        self.kernel.apply(ops)
        assert self.table() == wanted, "and as the generation tells"
        return [op.describe() for op in ops]


@pytest.fixture
def node() -> Iterator[Node]:
    if not ownable():
        pytest.skip("this kernel has no owners that leave their table (before 6.9)")
    with linux_kernel() as (_, netns):
        yield Node(netns)


def test_a_foreign_flush_passes_it_by_and_anybody_can_list_it(node: Node) -> None:
    with node.agent() as agent:
        agent.bring(OWNED)
        assert node.sh("nft flush ruleset").returncode == 0
        assert node.tables() == ["table inet towpath"]
        for command in (
            "nft delete table inet towpath",
            "nft flush chain inet towpath forward",
            "nft add table inet towpath",
        ):
            refused = node.sh(command)
            assert "Operation not permitted" in refused.stderr
        assert "masquerade fully-random" in node.sh("nft list ruleset").stdout
        assert agent.table() == OWNED
        # And it goes on changing it, by either way of sending.
        more = {("cali1", IPv4Address("10.42.0.3")): ()}
        agent.bring(replace(OWNED, sets={"pods": replace(PODS, elements=more)}))
        agent.bring(replace(OWNED, chains={**CHAINS, "nats": replace(CHAINS["nats"], rules=("return",))}))


def test_it_outlives_its_owner_and_the_next_one_owns_it(node: Node) -> None:
    with node.agent() as agent:
        agent.bring(OWNED)
        handle = node.sh("nft -a list table inet towpath").stdout.split("# ")[1].split(" progname")[0]
    with node.agent() as agent:
        assert agent.table() == replace(OWNED, owner="kept")
        assert agent.bring(OWNED) == ["nft inet towpath: own"]
        assert agent.bring(OWNED) == []
        node.sh("nft flush ruleset")
        assert agent.table() == OWNED
    assert node.sh("nft -a list table inet towpath").stdout.split("# ")[1].startswith(handle), "the very same"


def test_one_that_does_not_own_takes_over_from_one_that_does_and_back(node: Node) -> None:
    with node.agent() as agent:
        agent.bring(OWNED)
    kept = replace(FREE, owner="kept")
    with node.agent() as older:
        assert diff(NetState(nft=older.table()), NetState(nft=FREE), Scope()) == ()
        other = replace(kept, chains={**CHAINS, "nats": replace(CHAINS["nats"], rules=("return",))})
        assert older.bring(other) == ["nft inet towpath: chain nats (1 rules)"]
        hooked = replace(kept, chains={**CHAINS, "nats": replace(CHAINS["nats"], hook=HOOK, rules=())})
        [op] = diff(NetState(nft=older.table()), NetState(nft=hooked), Scope())
        older.kernel.apply([op])
        assert older.table() == replace(hooked, owner="free"), "made anew, as one transaction"
    with node.agent() as newer:
        [done] = newer.bring(OWNED)
        assert done.startswith("nft inet towpath: recreate, own")
        assert node.tables() == ["table inet towpath"]


def test_whoever_uninstalls_can_delete_it_once_the_owner_has_gone(node: Node) -> None:
    with node.agent() as agent:
        agent.bring(OWNED)
    assert node.sh("nft delete table inet towpath").returncode == 0
    assert node.tables() == []


def test_a_second_owner_is_refused_and_told_of_the_first(node: Node) -> None:
    with node.agent() as first, node.agent() as second:
        first.bring(OWNED)
        found = second.table()
        assert found == replace(OWNED, owner="foreign")
        with pytest.raises(KernelRefused, match="owns it") as caught:
            second.kernel.apply(diff(NetState(nft=found), NetState(nft=OWNED), Scope()))
        assert caught.value.errno == EPERM
        assert first.table() == OWNED


@pytest.mark.parametrize("left", ["both", "double only"])
def test_an_exchange_that_was_cut_off_is_finished_by_the_next_one(node: Node, left: str) -> None:
    """A process that dies while the table is made anew leaves its double in force: stricter, never less."""
    with node.agent() as agent:
        agent.bring(FREE)
        double = replace(FREE, name="towpath_next")
        agent.kernel.apply(diff(NetState(), NetState(nft=double), Scope()))
    if left == "double only":
        node.sh("nft delete table inet towpath")
    with node.agent() as agent:
        found = agent.table()
        assert found is not None
        assert found.doubled
        agent.bring(OWNED if left == "both" else FREE)
        assert node.tables() == ["table inet towpath"]


_SENDER = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(flush=True)
while True:
    for port in (1001, 1002):
        s.sendto(b"x", ("127.0.0.1", port))
"""


@contextmanager
def sending(node: Node) -> Iterator[None]:
    """Datagrams to the ports 1001 and 1002 of the node, as fast as it goes."""
    command = [sys.executable, "-c", _SENDER]
    sender = run_in(node.netns, lambda: subprocess.Popen(command, stdout=subprocess.PIPE))
    assert sender.stdout is not None
    with sender, sender.stdout:
        sender.stdout.readline()
        yield
        sender.kill()


def test_there_is_never_less_than_one_table_while_it_is_made_anew(node: Node) -> None:
    """What must pass does, and what must not does not, all the while."""
    for command in (
        "ip link set lo up",
        "nft add table inet count",
        "nft add chain inet count after { type filter hook input priority 10 ; }",
        "nft add rule inet count after udp dport 1001 counter",
        "nft add rule inet count after udp dport 1002 counter",
    ):
        assert node.sh(command).returncode == 0
    drop = NftChain(name="in", hook=INPUT, rules=("udp dport 1002 drop",))
    moved = replace(drop, hook=replace(INPUT, priority=1))
    free = NftTable(name="towpath", chains={"in": drop})
    with node.agent() as agent:
        agent.bring(free)
    with sending(node):
        for _ in range(20):
            with node.agent() as agent:
                agent.bring(replace(free, owner="own"))
                done = agent.bring(replace(free, owner="own", chains={"in": moved}))
                assert done == ["nft inet towpath: recreate, own, chain in (1 rules)"]
            with node.agent() as older:
                [op] = diff(NetState(nft=older.table()), NetState(nft=free), Scope())
                older.kernel.apply([op])
                assert older.table() == free
    lines = node.sh("nft list chain inet count after").stdout.splitlines()
    passed, leaked = (int(line.split()[5]) for line in lines if "dport" in line)
    assert leaked == 0
    assert passed > 1000
