"""flanneld v0.26.4's rules for one family, in iptables' words and in nftables'. Pure."""

MASQUERADING = 6  # rules of FLANNEL-POSTRTG
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_COMMENT = '-m comment --comment "flanneld masq"'
_FORWARD = '-m comment --comment "flanneld forward"'
HOOKS = (
    ("nat", "POSTROUTING", f"{_COMMENT} -j FLANNEL-POSTRTG"),
    ("filter", "FORWARD", f"{_FORWARD} -j FLANNEL-FWD"),
)


def restore(family: int, network: str, subnet: str, *, forward: bool = True) -> str:
    """Input of ``iptables-restore --noflush``; the hooks are not part of it."""
    masquerade = "-j MASQUERADE --random-fully"
    lines = ["*nat", ":FLANNEL-POSTRTG - [0:0]"]
    rules = (
        f"-m mark --mark 0x4000/0x4000 {_COMMENT} -j RETURN",
        f"-s {subnet} -d {network} {_COMMENT} -j RETURN",
        f"-s {network} -d {subnet} {_COMMENT} -j RETURN",
        f"! -s {network} -d {subnet} {_COMMENT} -j RETURN",
        f"-s {network} ! -d {_MULTICAST[family]} {_COMMENT} {masquerade}",
        f"! -s {network} -d {network} {_COMMENT} {masquerade}",
    )
    lines += [f"-A FLANNEL-POSTRTG {rule}" for rule in rules]
    lines.append("COMMIT")
    if forward:
        lines += ["*filter", ":FLANNEL-FWD - [0:0]"]
        lines += [f"-A FLANNEL-FWD {side} {network} {_FORWARD} -j ACCEPT" for side in ("-s", "-d")]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def nft_script(family: int, network: str, subnet: str) -> str:
    """The table of ``EnableNFTables``, made anew in one transaction."""
    ip, name = ("ip", "flannel-ipv4") if family == 4 else ("ip6", "flannel-ipv6")
    return f"""
add table {ip} {name}
delete table {ip} {name}
table {ip} {name} {{
    comment "rules for {name}"
    chain forward {{
        comment "chain to accept flannel traffic"
        type filter hook forward priority filter; policy accept;
        {ip} saddr {network} accept
        {ip} daddr {network} accept
    }}
    chain postrtg {{
        comment "chain to manage traffic masquerading by flannel"
        type nat hook postrouting priority srcnat; policy accept;
        meta mark 0x4000 return
        {ip} saddr {subnet} {ip} daddr {network} return
        {ip} saddr {network} {ip} daddr {subnet} return
        {ip} saddr != {subnet} {ip} daddr {network} return
        {ip} saddr {network} {ip} daddr != {_MULTICAST[family]} masquerade fully-random
        {ip} saddr != {network} {ip} daddr {network} masquerade fully-random
    }}
}}
"""
