"""What is wrong with one node, by what was found on it. Pure.

The same judges serve preflight (before), the gates (after a node's turn), verify and watch.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_network

from towpath.inventory.cluster import NodeState
from towpath.inventory.node_report import UNSEEN, NodeReport, Postrouting
from towpath.model.finding import Finding
from towpath.preflight.situation import Untold, finding

_OLD_IPTABLES = re.compile(r"v1\.8\.[0-4]\b")
_CHURN = re.compile(
    r"^(?:ip6? nat (?:FLANNEL-POSTRTG|POSTROUTING)|ip6? filter FLANNEL-FWD|ip6? flannel-ipv[46] )"
)
_NFT_MODULES = (
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "xt_comment",
    "xt_MASQUERADE",
    "xt_mark",
    "xt_conntrack",
)
_LEGACY_MODULES = (
    "ip_tables",
    "iptable_nat",
    "iptable_filter",
    "xt_comment",
    "xt_MASQUERADE",
    "xt_conntrack",
)
_RESERVED, _FULL = 3, 0.95


def modules(node: NodeState, at: NodeReport) -> Iterator[Finding]:
    """10: the kernel has what the network's rules and its tunnel are made of, and the programs fit it."""
    if not at.modules and not at.tunnels:
        raise Untold(f"no list of {node.facts.name}'s kernel modules can be read")
    backend = {one.backend for one in at.rules if one.canal}
    wanted = (
        {"vxlan"}
        | set(_NFT_MODULES if "nft" in backend else ())
        | set(_LEGACY_MODULES if "legacy" in backend else ())
    )
    for name in sorted(wanted):
        if at.modules.get(name) == "missing":
            yield finding(
                "TP7320",
                _where(node),
                f"kernel {at.kernel} has no module {name}",
                "install the package with its extra modules (kernel-modules-extra, linux-modules-extra)",
            )
    for problem in at.problems:
        if problem.startswith("ipset: "):
            yield finding(
                "TP7321",
                _where(node),
                problem,
                "take an ipset that knows the kernel's sets, or an older kernel",
            )
    said = at.programs.get("iptables", "")
    if _OLD_IPTABLES.search(said):
        yield finding(
            "TP7322",
            _where(node),
            f"{said}: versions 1.8.0 to 1.8.4 lose or double rules",
            "install iptables 1.8.5 or newer, or remove it: RKE2 brings its own",
            "warning",
        )


def backends(node: NodeState, at: NodeReport) -> Iterator[Finding]:
    """11: one back end of iptables a node."""
    if unreadable := [problem for problem in at.problems if problem.startswith("iptables: ")]:
        raise Untold(f"{node.facts.name}: {'; '.join(unreadable)}")
    for family in (4, 6):
        of = {one.backend: one for one in at.rules if one.family == family}
        canal = {name for name, one in of.items() if one.canal}
        proxy = {name for name, one in of.items() if one.proxy}
        if len(canal) > 1 or (canal and proxy and canal != proxy):
            counts = ", ".join(
                f"{n} has {of[n].canal} of Canal's, {of[n].proxy} of kube-proxy's" for n in sorted(of)
            )
            yield finding(
                "TP7323",
                _where(node),
                f"IPv{family} rules stand in both back ends of iptables: {counts}",
                "see in calico-node's log which one is written now, and flush the other on this node",
            )


def system(node: NodeState, at: NodeReport) -> Iterator[Finding]:
    """13: nothing on the host works against the network."""
    for name in at.services:
        if name in ("firewalld", "nm-cloud-setup"):
            yield finding("TP7325", _where(node), f"{name} runs", f"systemctl disable --now {name}")
    if "NetworkManager" in at.services and not _left_alone(at):
        yield finding(
            "TP7326",
            _where(node),
            "NetworkManager runs and is not told to leave cali* and flannel* alone",
            "write [keyfile] unmanaged-devices=interface-name:cali*;interface-name:flannel* to "
            "/etc/NetworkManager/conf.d/rke2-canal.conf, and reload it",
        )
    families = {ip_network(cidr).version for cidr in node.pod_cidrs}
    for version, name in ((4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")):
        if version in families and at.sysctls.get(name) == "0":
            yield finding(
                "TP7327",
                _where(node),
                f"{name.replace('/', '.')} is 0",
                f"sysctl -w {name.replace('/', '.')}=1",
            )
    if at.sysctls.get("net/ipv4/conf/all/rp_filter") == "2" and any(one.canal for one in at.rules):
        yield finding(
            "TP7328",
            _where(node),
            "net.ipv4.conf.all.rp_filter is 2 (loose): Felix does not start with that",
            "sysctl -w net.ipv4.conf.all.rp_filter=1",
            "warning",
        )


def _left_alone(at: NodeReport) -> bool:
    words = " ".join(at.unmanaged)
    return "cali" in words and "flannel" in words


def leases(node: NodeState, at: NodeReport) -> Iterator[Finding]:
    """14: no address is held by a pod that is gone."""
    for one in at.leases:
        if not one.leaked:
            continue
        rooms = [ip_network(cidr).num_addresses - _RESERVED for cidr in node.pod_cidrs]
        full = one.total > min(rooms, default=one.total + 1) * _FULL
        some = ", ".join(one.leaked[:5]) + (" …" if len(one.leaked) > 5 else "")
        yield finding(
            "TP7329",
            _where(node),
            f"{len(one.leaked)} of {one.total} addresses of {one.network} are held by no pod: {some}",
            f"look at them, and delete their files in /var/lib/cni/networks/{one.network}",
            "error" if full else "warning",
        )


def masquerade(node: NodeState, at: NodeReport) -> Iterator[Finding]:
    """20: packets to the outside get the node's address, by rules that stand once and in order."""
    for family in sorted({ip_network(cidr).version for cidr in node.pod_cidrs}):
        found = [one for one in at.postrouting if one.family == family]
        if not any(_in_force(one) for one in found):
            if unseen := [one.place for one in found if any(target == UNSEEN for target, _ in one.rules)]:
                raise Untold(f"{node.facts.name}: rules of {unseen[0]} cannot be read without its program")
            where = "; ".join(f"{one.place}: {_lacking(one)}" for one in found) or "there is no such chain"
            yield finding(
                "TP7330",
                _where(node),
                f"nothing masquerades pods' IPv{family} packets: {where}",
                "restart its network pod; pods reach nothing outside until then",
            )
        for one in found:
            yield from _order(node, one)
        places = sorted(one.place for one in found if _in_force(one) and one.place.startswith("iptables"))
        if len(places) > 1:
            yield finding(
                "TP7331",
                _where(node),
                f"IPv{family} is masqueraded in {' and in '.join(places)}",
                "flush the one that nobody writes any more",
            )


def _in_force(one: Postrouting) -> bool:
    return one.hooks > 0 and any(target == "MASQUERADE" for target, _ in one.rules)


def _lacking(one: Postrouting) -> str:
    return "its chain is not called" if not one.hooks else "its chain has no MASQUERADE"


def _order(node: NodeState, one: Postrouting) -> Iterator[Finding]:
    targets = [target for target, _ in one.rules]
    wrong = []
    if one.hooks > 1:
        wrong.append(f"its chain is called {one.hooks} times")
    wrong += [f"{count} times {rule}" for (_, rule), count in Counter(one.rules).items() if count > 1]
    if "MASQUERADE" in targets and "RETURN" in targets[targets.index("MASQUERADE") :]:
        wrong.append("a RETURN stands behind a MASQUERADE: pods' own addresses are translated")
    if wrong:
        yield finding(
            "TP7331",
            _where(node),
            f"the rules of {one.place} (IPv{one.family}) are not as flannel writes them: {'; '.join(wrong)}",
            "delete the chain's rules and restart its network pod, which writes them anew",
        )


def churn(node: NodeState, at: NodeReport) -> Iterator[Finding]:
    """23: nobody writes the network's own rules again and again."""
    if at.churn is None:
        raise Untold("nobody looked long enough at the rules (--churn SECONDS)")
    often = {name: times for name, times in at.churn.changed.items() if _CHURN.match(name) and times > 1}
    if often:
        told = ", ".join(f"{name} {times} times" for name, times in sorted(often.items()))
        yield finding(
            "TP7336",
            _where(node),
            f"rules were written anew in {at.churn.seconds:g} s: {told}",
            "find out who fights over them; flannel 0.24.3 does it by itself (upgrade it)",
        )


def programs(node: NodeState, at: NodeReport) -> Iterator[Finding]:
    """24: the CNI programs on the host are those of the images that run, and a configuration calls them."""
    for name, digest in sorted(at.image_files.items()):
        installed = at.files.get(f"/opt/cni/bin/{name}")
        if installed is not None and installed != digest:
            yield finding(
                "TP7337",
                _where(node),
                f"/opt/cni/bin/{name} is not the one of the image that runs",
                "restart the pod that installs it (install-cni, multus), and look why it could not write it",
            )
    if not at.config:
        yield finding(
            "TP7338",
            _where(node),
            "there is no CNI configuration: no pod gets a network",
            "look at the log of the container install-cni",
        )


def _where(node: NodeState) -> str:
    return f"Node/{node.facts.name}"


Judge = Callable[[NodeState, NodeReport], Iterator[Finding]]
JUDGES: tuple[tuple[int, str, Judge], ...] = (
    (10, "the kernel has the modules, and the programs fit it", modules),
    (11, "one back end of iptables a node", backends),
    (13, "nothing on the host works against the network", system),
    (20, "masquerading is there, once and in order", masquerade),
    (23, "rules stay as they are", churn),
    (24, "CNI programs on the host are the images'", programs),
)
