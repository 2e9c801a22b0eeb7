"""Felix's rules, as v3.29 renders them for a node with some pods. Pure.

Hashes in comments are Felix's own where its chains are static; those of pods' chains are made here in the
same form (16 characters of base64url), as what they are hashes of is not public.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

import msgspec

from towpath.model.net import Addr

ACCEPT, PASS, DROP, ENDPOINT = "0x10000", "0x20000", "0x40000", "0xfff00000"
SETS = {4: "cali40", 6: "cali60"}
OF_PODS = ("cali-fw-", "cali-tw-", "cali-pi-", "cali-po-")
_ICMPV6 = ("130", "131", "132", "133", "135", "136")


Port = tuple[str, int]  # protocol in small letters, number


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pod may open connections to: networks, without ``excepted`` ones; ``ports`` empty for all."""

    networks: tuple[str, ...]
    excepted: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A pod: its host interface and addresses. ``sources``: who may open connections to it, None for all;

    ``ports``: to which everybody may besides. ``ways``: where it may open some to, None for everywhere.
    """

    dev: str
    addresses: tuple[str, ...]
    sources: tuple[str, ...] | None = None
    ports: tuple[Port, ...] = ()
    ways: tuple[Way, ...] | None = None


def restore(family: int, endpoints: Iterable[Endpoint]) -> str:
    """Input of ``iptables-restore --noflush`` that makes, or renews, all of Felix's chains of a family.

    Hooks in the kernel's own chains are not part of it (``hooks``): they are only added where missing.
    """
    pods = [e for e in endpoints if any(ip_address(a).version == family for a in e.addresses)]
    return "".join(f"{line}\n" for table in (_raw, _mangle, _nat, _filter) for line in table(family, pods))


def hooks() -> tuple[tuple[str, str, str], ...]:
    """Table, chain, rule. Felix inserts at the head, but for the last three, which it appends."""
    return (
        ("raw", "PREROUTING", _jump("6gwbT8clXdHdC1b1", "cali-PREROUTING")),
        ("raw", "OUTPUT", _jump("tVnHkvAo15HuiPy0", "cali-OUTPUT")),
        ("mangle", "PREROUTING", _jump("6gwbT8clXdHdC1b1", "cali-PREROUTING")),
        ("mangle", "POSTROUTING", _jump("O3lYWMrLQYEMJtB5", "cali-POSTROUTING")),
        ("nat", "PREROUTING", _jump("6gwbT8clXdHdC1b1", "cali-PREROUTING")),
        ("nat", "OUTPUT", _jump("tVnHkvAo15HuiPy0", "cali-OUTPUT")),
        ("nat", "POSTROUTING", _jump("O3lYWMrLQYEMJtB5", "cali-POSTROUTING")),
        ("filter", "INPUT", _jump("Cz_u1IQiXIMmKD4c", "cali-INPUT")),
        ("filter", "FORWARD", _jump("wUHhoiAYhphO9Mso", "cali-FORWARD")),
        ("filter", "OUTPUT", _jump("tVnHkvAo15HuiPy0", "cali-OUTPUT")),
    )


def appended() -> tuple[tuple[str, str, str], ...]:
    """Rules that Felix keeps behind everybody else's."""
    accepted = f'-m comment --comment "Policy explicitly accepted packet." -m mark --mark {ACCEPT}/{ACCEPT}'
    return (
        ("filter", "FORWARD", f"{_mark('S93hcgKJrXEqnTfs')} {accepted} -j ACCEPT"),
        ("filter", "FORWARD", f"{_mark('mp77cMpurHhyjLrM')} -j MARK --set-xmark {ACCEPT}/{ACCEPT}"),
    )


def set_name(family: int, endpoint: Endpoint) -> str:
    """The IP set of a pod's allowed sources; 25 characters of a hash behind the prefix, as Felix's."""
    digest = base64.urlsafe_b64encode(hashlib.sha224(endpoint.dev.encode()).digest()).decode()
    return f"{SETS[family]}s:{digest[:22]}"


def ipsets(family: int, endpoints: Iterable[Endpoint]) -> str:
    """Input of ``ipset restore -exist``."""
    inet = "inet" if family == 4 else "inet6"
    lines = [f"create {SETS[family]}all-ipam-pools hash:net family {inet} maxelem 1048576"]
    for endpoint in endpoints:
        if endpoint.sources is None:
            continue
        name = set_name(family, endpoint)
        lines += [f"create {name} hash:net family {inet} maxelem 1048576", f"flush {name}"]
        lines += [f"add {name} {one}" for one in endpoint.sources if ip_address(one).version == family]
    return "".join(f"{line}\n" for line in lines)


def _raw(family: int, pods: list[Endpoint]) -> Iterator[str]:
    del family, pods
    yield "*raw"
    yield from (f":{name} - [0:0]" for name in ("cali-OUTPUT", "cali-PREROUTING", "cali-rpf-skip"))
    yield from (f":{name} - [0:0]" for name in ("cali-from-host-endpoint", "cali-to-host-endpoint"))
    yield f"-A cali-OUTPUT {_mark('njdnLwYeGqBJyMxW')} -j MARK --set-xmark 0x0/0xf0000"
    yield f"-A cali-OUTPUT {_mark('rz86uTUcEZAfFsh7')} -j cali-to-host-endpoint"
    yield f"-A cali-OUTPUT {_mark('pN0F5zD0b8yf9W1Z')} -m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"
    yield f"-A cali-PREROUTING {_mark('XFX5xbM8B9qR10JG')} -j MARK --set-xmark 0x0/0xf0000"
    yield f"-A cali-PREROUTING -i cali+ {_mark('EWMPb0zVROM-woQp')} -j MARK --set-xmark {DROP}/{DROP}"
    yield f"-A cali-PREROUTING {_mark('PWuxTAIaFCtsg5Qa')} -m mark --mark {DROP}/{DROP} -j cali-rpf-skip"
    yield (
        f"-A cali-PREROUTING {_mark('fSSbGND7dgyemWU7')} -m mark --mark {DROP}/{DROP} "
        "-m rpfilter --validmark --invert -j DROP"
    )
    yield (
        f"-A cali-PREROUTING {_mark('ImU0-4Rl2WoOI9Ou')} -m mark --mark 0x0/{DROP} -j cali-from-host-endpoint"
    )
    yield f"-A cali-PREROUTING {_mark('lV4V2MPoMBf0hl9T')} -m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"
    yield "COMMIT"


def _mangle(family: int, pods: list[Endpoint]) -> Iterator[str]:
    del family, pods
    yield "*mangle"
    chains = ("cali-PREROUTING", "cali-POSTROUTING", "cali-from-host-endpoint", "cali-to-host-endpoint")
    yield from (f":{name} - [0:0]" for name in chains)
    yield (
        f"-A cali-PREROUTING {_mark('6BJqBjBC7crtA-7-')} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
    yield f"-A cali-PREROUTING {_mark('KX7AGNd6rMcDUai6')} -m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"
    yield f"-A cali-PREROUTING {_mark('wNH7KsA3ILKJBsY9')} -j cali-from-host-endpoint"
    yield f"-A cali-POSTROUTING {_mark('NX-7roTexQ3fGRfU')} -m mark --mark {ACCEPT}/{ACCEPT} -j RETURN"
    yield f"-A cali-POSTROUTING {_mark('nnqPh8lh2VOogSzX')} -j MARK --set-xmark 0x0/0xf0000"
    yield (
        f"-A cali-POSTROUTING {_mark('nquN8Jw8Tz72pcBW')} -m conntrack --ctstate DNAT "
        "-j cali-to-host-endpoint"
    )
    yield "COMMIT"


def _nat(family: int, pods: list[Endpoint]) -> Iterator[str]:
    del family, pods
    yield "*nat"
    chains = ("OUTPUT", "POSTROUTING", "PREROUTING", "fip-dnat", "fip-snat", "nat-outgoing")
    yield from (f":cali-{name} - [0:0]" for name in chains)
    yield f"-A cali-OUTPUT {_mark('GBTAv2p5CwevEyJm')} -j cali-fip-dnat"
    yield f"-A cali-POSTROUTING {_mark('Z-c7XtVd2Bq7s_hA')} -j cali-fip-snat"
    yield f"-A cali-POSTROUTING {_mark('nYKhEzDlr11Jccal')} -j cali-nat-outgoing"
    yield f"-A cali-PREROUTING {_mark('r6XmIziWUJsdOK6Z')} -j cali-fip-dnat"
    yield "COMMIT"


def chains(family: int, endpoints: Iterable[Endpoint]) -> frozenset[str]:
    """Names of the chains that pods have of their own, in the filter table."""
    pods = [e for e in endpoints if any(ip_address(a).version == family for a in e.addresses)]
    found = {f"cali-{way}-{e.dev}" for e in pods for way in ("fw", "tw")}
    found |= {f"cali-pi-{_policy(e)}" for e in pods if e.sources is not None}
    return frozenset(found | {f"cali-po-{_policy(e)}" for e in pods if e.ways is not None})


def _filter(family: int, pods: list[Endpoint]) -> Iterator[str]:
    yield "*filter"
    names = ["FORWARD", "INPUT", "OUTPUT", "cidr-block", "from-hep-forward", "from-host-endpoint"]
    names += ["from-wl-dispatch", "to-hep-forward", "to-host-endpoint", "to-wl-dispatch", "wl-to-host"]
    names += [f"{way}-{e.dev}" for e in pods for way in ("fw", "tw")]
    names += [f"pi-{_policy(e)}" for e in pods if e.sources is not None]
    names += [f"po-{_policy(e)}" for e in pods if e.ways is not None]
    yield from (f":cali-{name} - [0:0]" for name in names)
    yield from _static()
    if family == 6:
        yield from _discovery()
    yield f"-A cali-wl-to-host {_mark('Ee9Sbo10IpVujdIY')} -j cali-from-wl-dispatch"
    text = '-m comment --comment "Configured DefaultEndpointToHostAction"'
    yield f"-A cali-wl-to-host {_mark('nSZbcOoG1xPONxb8')} {text} -j ACCEPT"
    for way, option in (("from", "-i"), ("to", "-o")):
        for e in pods:
            chain = f"cali-{'fw' if way == 'from' else 'tw'}-{e.dev}"
            yield f"-A cali-{way}-wl-dispatch {option} {e.dev} {_made(way, e.dev)} -g {chain}"
        yield (f'-A cali-{way}-wl-dispatch {_made(way, "")} -m comment --comment "Unknown interface" -j DROP')
    for e in pods:
        yield from _workload(family, e)
    yield "COMMIT"


def _static() -> Iterator[str]:
    yield f"-A cali-FORWARD {_mark('vjrMJCRpqwy5oRoX')} -j MARK --set-xmark 0x0/0xe0000"
    yield f"-A cali-FORWARD {_mark('A_sPAO0mcxbT9mOV')} -m mark --mark 0x0/{ACCEPT} -j cali-from-hep-forward"
    yield f"-A cali-FORWARD -i cali+ {_mark('8ZoYfO5HKXWbB3pk')} -j cali-from-wl-dispatch"
    yield f"-A cali-FORWARD -o cali+ {_mark('jdEuaPBe14V2hutn')} -j cali-to-wl-dispatch"
    yield f"-A cali-FORWARD {_mark('12bc6HljsMKsmfr-')} -j cali-to-hep-forward"
    yield f"-A cali-FORWARD {_mark('NOSxoaGx8OIstr1z')} -j cali-cidr-block"
    yield f"-A cali-INPUT -i cali+ {_mark('FewJpBykm9iJ-YNH')} -g cali-wl-to-host"
    yield f"-A cali-INPUT {_mark('hder3ARWznqqv8Va')} -m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"
    yield f"-A cali-INPUT {_mark('xgOu2uJft6H9oDGF')} -j MARK --set-xmark 0x0/0xf0000"
    yield f"-A cali-INPUT {_mark('_-d-qojMfHM6NwBo')} -j cali-from-host-endpoint"
    yield f"-A cali-OUTPUT {_mark('Mq1_rAdXXH3YkrzW')} -m mark --mark {ACCEPT}/{ACCEPT} -j ACCEPT"
    yield f"-A cali-OUTPUT -o cali+ {_mark('69FkRTJDvD5Vu6Vl')} -j RETURN"
    yield f"-A cali-OUTPUT {_mark('Fskumj4SGQtDV6GC')} -j MARK --set-xmark 0x0/0xf0000"
    yield f"-A cali-OUTPUT {_mark('8dEqMQXIBYHcRBkb')} -m conntrack ! --ctstate DNAT -j cali-to-host-endpoint"


def _discovery() -> Iterator[str]:
    for number in _ICMPV6:
        yield (
            f"-A cali-wl-to-host -p ipv6-icmp {_made('nd', number)} -m icmp6 --icmpv6-type {number} -j ACCEPT"
        )


def _workload(family: int, e: Endpoint) -> Iterator[str]:
    for way in ("tw", "fw"):
        chain = f"cali-{way}-{e.dev}"

        def mark(number: int, chain: str = chain) -> str:
            return _made(chain, str(number))

        yield f"-A {chain} {mark(1)} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        yield f"-A {chain} {mark(2)} -m conntrack --ctstate INVALID -j DROP"
        yield f"-A {chain} {mark(3)} -j MARK --set-xmark 0x0/{ACCEPT}"
        judged = "pi" if way == "tw" else "po"
        if (e.sources if way == "tw" else e.ways) is not None:
            yield f"-A {chain} {mark(4)} -j MARK --set-xmark 0x0/{PASS}"
            yield f"-A {chain} {mark(5)} -m mark --mark 0x0/{PASS} -j cali-{judged}-{_policy(e)}"
            accepted = f"-m mark --mark {ACCEPT}/{ACCEPT}"
            text = '-m comment --comment "Return if policy accepted"'
            yield f"-A {chain} {mark(6)} {text} {accepted} -j RETURN"
            text = '-m comment --comment "End of tier default. Drop if no policies passed packet"'
            yield f"-A {chain} {mark(7)} {text} -m mark --mark 0x0/{PASS} -j DROP"
        yield f"-A {chain} {mark(8)} -j MARK --set-xmark {ACCEPT}/{ACCEPT}"
        text = '-m comment --comment "Return if profile accepted"'
        yield f"-A {chain} {mark(9)} {text} -m mark --mark {ACCEPT}/{ACCEPT} -j RETURN"
        yield f'-A {chain} {mark(10)} -m comment --comment "Drop if no profiles matched" -j DROP'
    if e.sources is not None:
        chain = f"cali-pi-{_policy(e)}"
        matched = f"-m set --match-set {set_name(family, e)} src"
        yield f"-A {chain} {_made(chain, '1')} {matched} -j MARK --set-xmark {ACCEPT}/{ACCEPT}"
        for number, port in enumerate(e.ports, 2):
            yield (
                f"-A {chain} {_made(chain, str(number))} {_to(port)} -j MARK --set-xmark {ACCEPT}/{ACCEPT}"
            )
    if e.ways is not None:
        yield from _egress(family, e, e.ways)


def _egress(family: int, e: Endpoint, ways: tuple[Way, ...]) -> Iterator[str]:
    """What the last way excepts leaves the chain without a mark: nothing after it could allow it."""
    chain, number = f"cali-po-{_policy(e)}", 0
    for one in ways:
        lines = [(f"-d {network}", "RETURN") for network in one.excepted]
        accepted = f"MARK --set-xmark {ACCEPT}/{ACCEPT}"
        ports = [f" {_to(port)}" for port in one.ports] or [""]
        lines += [(f"-d {network}{port}", accepted) for network in one.networks for port in ports]
        for match, target in lines:
            if ip_network(match.split()[1]).version == family:
                number += 1
                yield f"-A {chain} {match} {_made(chain, str(number))} -j {target}"


def _to(port: Port) -> str:
    return f"-p {port[0]} -m {port[0]} --dport {port[1]}"


def _policy(e: Endpoint) -> str:
    return hashlib.sha1(e.dev.encode(), usedforsecurity=False).hexdigest()[:16]


def _jump(digest: str, chain: str) -> str:
    return f"{_mark(digest)} -j {chain}"


def _mark(digest: str) -> str:
    return f'-m comment --comment "cali:{digest}"'


def _made(*of: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha224(" ".join(of).encode()).digest()).decode()
    return _mark(digest[:16])


# nftables mode.


def nft_script(family: int, endpoints: Iterable[Endpoint]) -> str:
    """Felix's nftables mode (v3.29, a technology preview): the table ``calico`` of one family, made anew."""
    ip = "ip" if family == 4 else "ip6"
    pods = [e for e in endpoints if any(ip_address(a).version == family for a in e.addresses)]
    lines = [f"add table {ip} calico", f"delete table {ip} calico", f"table {ip} calico {{"]
    for name, kind, hook, priority in (
        ("raw-PREROUTING", "filter", "prerouting", "raw"),
        ("mangle-PREROUTING", "filter", "prerouting", "mangle"),
        ("nat-PREROUTING", "nat", "prerouting", "dstnat"),
        ("nat-POSTROUTING", "nat", "postrouting", "srcnat"),
    ):
        lines.append(f"chain {name} {{ type {kind} hook {hook} priority {priority}; policy accept; }}")
    for e in pods:
        lines += _nft_pod(family, e)
    for way, option in (("from", "iifname"), ("to", "oifname")):
        short = "fw" if way == "from" else "tw"
        goes = "".join(f'{option} "{e.dev}" goto filter-cali-{short}-{e.dev}\n' for e in pods)
        lines.append(f"chain filter-cali-{way}-wl-dispatch {{\n{goes}drop\n}}")
    lines.append(
        'chain filter-cali-FORWARD {\niifname "cali*" jump filter-cali-from-wl-dispatch\n'
        'oifname "cali*" jump filter-cali-to-wl-dispatch\n}'
    )
    lines.append(
        "chain filter-FORWARD { type filter hook forward priority filter; policy accept; "
        "jump filter-cali-FORWARD\n}"
    )
    return "\n".join([*lines, "}", ""])


def _nft_pod(family: int, e: Endpoint) -> list[str]:
    ip = "ip" if family == 4 else "ip6"
    left = "\n"
    if e.ways is not None:
        left = f"\n{''.join(_nft_ways(family, ip, e.ways))}drop\n"
    fw = (
        f"chain filter-cali-fw-{e.dev} {{\nct state established,related accept\nct state invalid drop{left}}}"
    )
    allowed = "\n"
    if e.sources is not None:
        mine: list[Addr] = [a for a in map(ip_address, e.sources) if a.version == family]
        members = ", ".join(map(str, mine))
        ports = "".join(f"{protocol} dport {number} return\n" for protocol, number in e.ports)
        allowed = f"\n{ip} saddr {{ {members} }} return\n{ports}drop\n" if mine else f"\n{ports}drop\n"
    return [fw, f"chain filter-cali-tw-{e.dev} {{\nct state established,related accept{allowed}}}"]


def _nft_ways(family: int, ip: str, ways: tuple[Way, ...]) -> Iterator[str]:
    for one in ways:
        yield from (f"{ip} daddr {net} drop\n" for net in one.excepted if ip_network(net).version == family)
        for net in one.networks:
            if ip_network(net).version == family:
                ports = [f" {protocol} dport {number}" for protocol, number in one.ports] or [""]
                yield from (f"{ip} daddr {net}{port} return\n" for port in ports)
