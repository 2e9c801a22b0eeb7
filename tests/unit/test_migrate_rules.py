"""What of iptables' rules is Canal's, what is not, and what serves host ports."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.lab.canal import felix, felix_rules, flannel_rules
from towpath.lab.canal.felix_rules import Endpoint
from towpath.migrate import hostports
from towpath.migrate.iptables import closed, parse_save, restore_text
from towpath.migrate.ownership import endpoints_in_force, ifb_name, masquerades, owned
from towpath.model.attachment import PortMapping
from towpath.probe import objects as probes

NETWORK = "k8s-pod-network"
# As iptables-save prints what Debian's portmap 1.1.1 has made, beside podman's.
PORTMAP = """*nat
:PREROUTING ACCEPT [0:0]
:CNI-DN-c76eb7244800a2030e6ce - [0:0]
:CNI-DN-0123456789abcdef01234 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-DN-c76eb7244800a2030e6ce -s 10.42.1.5/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-c76eb7244800a2030e6ce -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-c76eb7244800a2030e6ce -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.42.1.5:80
-A CNI-DN-c76eb7244800a2030e6ce -d 127.0.0.1/32 -p udp -m udp --dport 5353 -j DNAT \
--to-destination 10.42.1.5:53
-A CNI-DN-0123456789abcdef01234 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 10.88.0.2:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"k8s-pod-network\\" id: \\"abcdef0123\\"" \
-m multiport --dports 8080 -j CNI-DN-c76eb7244800a2030e6ce
-A CNI-HOSTPORT-DNAT -p udp -m comment --comment "dnat name: \\"k8s-pod-network\\" id: \\"abcdef0123\\"" \
-m multiport --dports 5353 -j CNI-DN-c76eb7244800a2030e6ce
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"podman\\" id: \\"beef\\"" \
-m multiport --dports 9000 -j CNI-DN-0123456789abcdef01234
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
COMMIT
"""
POD = Endpoint(dev="cali12345678901", addresses=("10.42.1.5", "fd00:10:42:1::5"), sources=("10.42.1.6",))


def canal(family: int = 4) -> str:
    """What iptables-save would show of Felix and flanneld; it quotes comments as restore takes them."""
    net, subnet = (
        ("10.42.0.0/16", "10.42.1.0/24") if family == 4 else ("fd00:10:42::/56", "fd00:10:42:1::/64")
    )
    blocks: dict[str, list[str]] = {}
    for text in (felix_rules.restore(family, [POD]), flannel_rules.restore(family, net, subnet)):
        table = ""
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line != "COMMIT":
                blocks.setdefault(table, []).append(line)
    hooks = (*felix_rules.hooks(), *felix_rules.appended(), *flannel_rules.HOOKS)
    for table, chain, rule in hooks:
        blocks[table].append(f"-A {chain} {rule}")
    return "".join(f"*{table}\n" + "\n".join(lines) + "\nCOMMIT\n" for table, lines in blocks.items())


@pytest.mark.parametrize("family", [4, 6])
def test_all_of_canals_and_nothing_else(family: int) -> None:
    foreign = (
        '-A FORWARD -m comment --comment "not cali:nor flanneld masq" -j ACCEPT\n-A INPUT -i cali0 -j DROP\n'
    )
    text = canal(family).replace("*filter\n", f"*filter\n:OWN - [0:0]\n{foreign}")
    tables = parse_save(text)
    found = owned(tables, NETWORK)
    assert not found.strange
    removed = {rule for removal in found.removals for rule in removal.rules}
    chains = {(removal.table, name) for removal in found.removals for name in removal.chains}
    left = [
        rule.text
        for table in tables.values()
        for rule in table.rules
        if rule not in removed and (table.name, rule.chain) not in chains
    ]
    assert left == foreign.splitlines()
    assert ("filter", "OWN") not in chains
    assert endpoints_in_force(tables) == {POD.dev}
    assert masquerades(tables)


def test_strangers_among_canals_are_named() -> None:
    for line, said in (
        ("-A cali-FORWARD -s 192.0.2.1/32 -j DROP", "cali-FORWARD -s 192.0.2.1"),
        ("-A OWN -j cali-FORWARD", "-A OWN -j cali-FORWARD"),
        (":FLANNEL-OTHER - [0:0]", "FLANNEL-OTHER"),
        ("-A FLANNEL-FWD -s 192.0.2.1/32 -j ACCEPT", "FLANNEL-FWD -s 192.0.2.1"),
    ):
        text = canal().replace("*filter\n", f"*filter\n:OWN - [0:0]\n{line}\n")
        assert any(said in what for what in owned(parse_save(text), NETWORK).strange), line


def test_host_ports_of_other_networks_stay_and_so_do_the_chains_all_share() -> None:
    tables = parse_save(PORTMAP)
    (removal,) = owned(tables, NETWORK).removals
    assert removal.chains == ("CNI-DN-c76eb7244800a2030e6ce",)
    assert {rule.chain for rule in removal.rules} == {"CNI-HOSTPORT-DNAT"}
    alone = "\n".join(
        line for line in PORTMAP.splitlines() if "podman" not in line and "0123456789" not in line
    )
    (removal,) = owned(parse_save(alone), NETWORK).removals
    assert "CNI-HOSTPORT-SETMARK" in removal.chains
    assert {rule.chain for rule in removal.rules} == {"PREROUTING", "POSTROUTING"}
    assert restore_text([removal]).startswith("*nat\n:CNI-DN-c76eb7244800a2030e6ce - [0:0]\n")


def test_host_ports_from_the_rules_that_serve_them() -> None:
    assert hostports.from_iptables(parse_save(PORTMAP), NETWORK) == {
        "abcdef0123": (
            PortMapping(host_port=8080, container_port=80),
            PortMapping(host_port=5353, container_port=53, protocol="udp", host_ip=ip_address("127.0.0.1")),
        )
    }
    listing = """table ip cni_hostport { # handle 9
	chain hostports { # handle 1
		tcp dport 8080 dnat to 10.42.1.5:80 comment "abcdef0123" # handle 12
	}
	chain hostip_hostports { # handle 2
		ip daddr 127.0.0.1 udp dport 5353 dnat to 10.42.1.5:53 comment "abcdef0123" # handle 13
	}
	chain masquerading { # handle 3
		ip saddr 10.42.1.5 ip daddr 10.42.1.5 masquerade comment "abcdef0123" # handle 14
	}
}"""
    six = 'tcp dport 8080 dnat to [fd00::5]:80 comment "abcdef0123" # handle 4'
    both = hostports.merged([hostports.from_nft(listing), hostports.from_nft(six)])
    assert {(m.protocol, m.host_port, m.container_port) for m in both["abcdef0123"]} == {
        ("tcp", 8080, 80),
        ("udp", 5353, 53),
    }


def test_names_are_those_that_the_plugins_make() -> None:
    # Seen: Debian's plugins 1.1.1 for network k8s-pod-network, container abcdef0123.
    assert ifb_name(NETWORK, "abcdef0123") == "bwpc76eb7244800"


def test_a_firewall_that_only_canals_accepts_open() -> None:
    assert "DROP" in closed(parse_save("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"), "FORWARD")
    reject = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n"
    assert "REJECT" in closed(parse_save(reject), "INPUT")
    some = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\nCOMMIT\n"
    assert not closed(parse_save(some), "INPUT")
    assert not closed({}, "FORWARD")


@given(st.text(alphabet=' \\"-jAcali:flanned*', max_size=40))
def test_comments_never_count_as_options(comment: str) -> None:
    quoted = comment.replace("\\", "\\\\").replace('"', '\\"')
    text = f'*filter\n:FORWARD ACCEPT\n-A FORWARD -m comment --comment "{quoted}" -j ACCEPT\nCOMMIT\n'
    (rule,) = parse_save(text)["filter"].rules
    assert rule.comments == (comment,)
    assert rule.target == "ACCEPT"


def test_felix_reads_the_policies_that_probes_are_denied_by() -> None:
    """Ports of ingress, blocks with exceptions of egress: what the probes' own policies are made of."""
    run = probes.Run(name="abc", expires="", image="image")
    policies = probes.policies(run, ("203.0.113.9", "2001:db8::9"))
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in policies]
    pods = [
        {
            "metadata": {"namespace": run.namespace, "name": f"p{number}", "labels": labels},
            "spec": {"nodeName": "n1"},
            "status": {"podIPs": [{"ip": f"10.42.0.{number}"}]},
        }
        for number, labels in enumerate(selected, 2)
    ]
    found = {e.addresses[0]: e for e in felix.endpoints("n1", pods, policies)}
    asked, asking = found["10.42.0.2"], found["10.42.0.3"]
    assert asked.sources == () and {name for name, _ in asked.ports} == {"tcp", "udp"} and asked.ways is None
    assert asking.sources is None and asking.ways is not None
    assert [bool(way.excepted) for way in asking.ways] == [False, True]
    rules = felix_rules.restore(4, [asked, asking]).splitlines()
    out = [line for line in rules if line.startswith("-A cali-po-")]
    assert [line.rpartition(" -j ")[2].split()[0] for line in out][-2:] == ["RETURN", "MARK"]
    assert "-d 203.0.113.9/32" in out[-2] and "-d 0.0.0.0/0" in out[-1]
    assert not any("2001:db8" in line for line in rules)
