"""Transactions of ``reconcile.tables`` on the real nftables: what must work in one, does."""

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network

import pytest
from msgspec.structs import replace

from attachments import attachment
from nodes import DUAL
from towpath.desired.ruleset import TABLE, bind, ruleset, unbind
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.model.attachment import PortMapping
from towpath.model.net import Net
from towpath.model.nft import Hook, NftChain, NftSet, NftTable
from towpath.reconcile.tables import diff_table

pytestmark = pytest.mark.kernel

LOCAL: tuple[Net, ...] = (ip_network("10.42.1.0/24"), ip_network("fd00:10:42:1::/64"))
PORT = (PortMapping(host_port=8080, container_port=80),)
A = attachment("a", "10.42.1.2", "fd00:10:42:1::2", ports=PORT)
B = attachment("b", "10.42.1.3", "fd00:10:42:1::3")
BASE = ruleset(DUAL, LOCAL, (A, B))


@pytest.fixture
def kernel() -> Iterator[LinuxKernel]:
    made = run_in(new_netns(), LinuxKernel)
    yield made
    made.close()


def become(kernel: LinuxKernel, table: NftTable) -> int:
    """Turn the table into ``table``; the number of transactions it took. Then it is that."""
    update = diff_table(kernel.observe((), TABLE).nft, table)
    if update is not None:
        kernel.apply([update])
    assert diff_table(kernel.observe((), TABLE).nft, table) is None
    return update is not None


def test_from_nothing_and_again(kernel: LinuxKernel) -> None:
    assert become(kernel, BASE)
    assert not become(kernel, BASE)


def test_a_host_port_changes_hands_in_one_transaction(kernel: LinuxKernel) -> None:
    become(kernel, BASE)
    become(kernel, ruleset(DUAL, LOCAL, (replace(A, ports=()), replace(B, ports=PORT))))


def test_networks_grow_shrink_and_overlap_their_former_selves(kernel: LinuxKernel) -> None:
    for cidr in ("10.42.0.0/16", "10.42.0.0/15", "10.43.0.0/16", "10.43.128.0/17", "10.43.128.0/32"):
        become(kernel, ruleset(replace(DUAL, ipv4=IPv4Network(cidr)), LOCAL, (A, B)))


def test_bind_and_unbind_are_the_difference_a_pod_makes(kernel: LinuxKernel) -> None:
    become(kernel, ruleset(DUAL, LOCAL, (B,)))
    kernel.apply([bind(A)])
    assert diff_table(kernel.observe((), TABLE).nft, BASE) is None
    kernel.apply([unbind(A)])
    kernel.apply([unbind(A)])
    assert diff_table(kernel.observe((), TABLE).nft, ruleset(DUAL, LOCAL, (B,))) is None


def test_chains_and_sets_come_and_go(kernel: LinuxKernel) -> None:
    more = replace(
        BASE,
        sets={
            **BASE.sets,
            "extra": NftSet(
                name="extra", key=("ifname",), data=("verdict",), elements={("x",): ("goto pod",)}
            ),
        },
        chains={
            **BASE.chains,
            "pod": NftChain(name="pod", rules=("ip saddr 10.42.0.9 accept", "counter drop")),
            "user": NftChain(name="user", rules=("iifname vmap @extra", "jump pod")),
        },
    )
    for table in (BASE, more, BASE):
        become(kernel, table)


def test_a_foreign_hand_on_types_and_hooks_is_undone_in_one_transaction(kernel: LinuxKernel) -> None:
    forward = BASE.chains["forward"]
    assert forward.hook is not None
    wrong = replace(
        BASE,
        sets={**BASE.sets, "pod_src4": NftSet(name="pod_src4", key=("ifname", "ipv4_addr"), data=("mark",))},
        chains={
            **BASE.chains,
            "antispoof": NftChain(name="antispoof", rules=("counter drop",)),
            "forward": replace(forward, hook=Hook(type="filter", hook="forward", priority=-5)),
            "nat_postrouting": NftChain(name="nat_postrouting", rules=("accept",)),
            "from_pod": NftChain(name="from_pod", hook=Hook(type="filter", hook="input", priority=7)),
            "input": NftChain(name="input", rules=()),
        },
    )
    wrong.chains["forward"] = replace(wrong.chains["forward"], rules=())
    become(kernel, wrong)
    assert become(kernel, BASE) == 1


def test_a_policy_changes_in_place(kernel: LinuxKernel) -> None:
    forward = BASE.chains["forward"]
    assert forward.hook is not None
    closed = replace(forward, hook=replace(forward.hook, policy="drop"))
    for chain in (forward, closed, forward):
        become(kernel, replace(BASE, chains={**BASE.chains, "forward": chain}))
