"""Chains as Felix writes them for thousands of policies that one selector applies to a pod, all of one rule.

Read from its source, felix/rules/{endpoints,policy}.go and felix/nftables/{renderer,ipsets}.go: a chain for
each policy (ip set match, port, mark), one for the group of policies that calls them and returns as soon as
one has marked the packet (asked after every fifth, as from 3.28 on), a counter on every rule, and sets of
networks for selectors. Left out are its jumps for dispatch and profiles, and the returns at the ends of
policies' chains, which releases before it stripped them had: what stands here is the least that Felix writes.
"""

import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from bench.policy_node import PORT, Node

CHAINS = 5_000
_EVERY = 5
_ACCEPT, _PASS, _BOTH = "0x10000", "0x20000", "0x30000"

PeerOf = Callable[[int], IPv4Address]


def nftables(node: Node, device: str, peer: PeerOf) -> None:
    """Its nftables mode (a preview in 3.29): the pod behind ``device`` lets in ``peer(1…)``."""
    lines = ["table ip calico {"]
    for n in range(1, CHAINS + 1):
        lines += [
            f"set s{n} {{ type ipv4_addr; flags interval; elements = {{ {peer(n)} }} }}",
            f"chain pi{n} {{",
            f"meta l4proto tcp ip saddr @s{n} tcp dport {PORT} counter meta mark set meta mark | {_ACCEPT}",
            "}",
        ]
    lines.append("chain gi {")
    for n, first in _grouped():
        if first and n > 1:
            lines.append(f"meta mark & {_BOTH} != 0 counter return")
        lines.append(f"{'' if first else f'meta mark & {_BOTH} == 0 '}counter jump pi{n}")
    lines += [
        "}",
        "chain tw {",
        "ct state established,related counter accept",
        "ct state invalid counter drop",
        "counter meta mark set meta mark & 0xfffcffff",
        f"meta mark & {_PASS} == 0 counter jump gi",
        f"meta mark & {_ACCEPT} == {_ACCEPT} counter return",
        "counter drop",
        "}",
        "chain forward { type filter hook forward priority 0; policy accept;",
        f'oifname "{device}" counter jump tw',
        "}",
        "}",
    ]
    _fed(node, ["nft", "-f", "-"], lines)


def iptables(node: Node, device: str, peer: PeerOf) -> None:
    """Its iptables mode, which RKE2's Canal runs; of iptables' two backends the quicker one."""
    sets = [
        line
        for n in range(1, CHAINS + 1)
        for line in (f"create cali40s:{n} hash:net family inet", f"add cali40s:{n} {peer(n)}")
    ]
    _fed(node, ["ipset", "restore"], sets)
    comment = '-m comment --comment "cali:0123456789abcdef"'
    lines = ["*filter", ":cali-tw - [0:0]", ":cali-gi - [0:0]"]
    lines += [f":cali-pi-{n} - [0:0]" for n in range(1, CHAINS + 1)]
    lines += [
        f"-A FORWARD -o {device} {comment} -j cali-tw",
        f"-A cali-tw {comment} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A cali-tw {comment} -m conntrack --ctstate INVALID -j DROP",
        f"-A cali-tw {comment} -j MARK --set-xmark 0/{_BOTH}",
        f"-A cali-tw {comment} -m mark --mark 0/{_PASS} -j cali-gi",
        f"-A cali-tw {comment} -m mark --mark {_ACCEPT}/{_ACCEPT} -j RETURN",
        f"-A cali-tw {comment} -j DROP",
    ]
    for n, first in _grouped():
        if first and n > 1:
            lines.append(f"-A cali-gi {comment} -m mark ! --mark 0/{_BOTH} -j RETURN")
        asked = "" if first else f"-m mark --mark 0/{_BOTH} "
        lines.append(f"-A cali-gi {comment} {asked}-j cali-pi-{n}")
        lines.append(
            f"-A cali-pi-{n} {comment} -p tcp -m set --match-set cali40s:{n} src"
            f" -m multiport --dports {PORT} -j MARK --set-xmark {_ACCEPT}/{_ACCEPT}"
        )
    _fed(node, ["iptables-legacy-restore"], [*lines, "COMMIT"])


def _grouped() -> Iterator[tuple[int, bool]]:
    """Policies' numbers, and whether one is the first since its group has been asked whether to return."""
    return ((n, n % _EVERY == 1) for n in range(1, CHAINS + 1))


def _fed(node: Node, command: list[str], lines: list[str]) -> None:
    enter = ["nsenter", f"--net=/proc/self/fd/{node.netns}"]
    text = "\n".join(lines) + "\n"
    subprocess.run([*enter, *command], input=text, text=True, check=True, pass_fds=(node.netns,))
