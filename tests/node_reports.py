"""Reports of nodes, as they are on a cluster with Canal in which all is well."""

from towpath.inventory.node_report import Churn, Leases, NodeReport, Postrouting, Rules, Tunnel

_MASQUERADE = (
    ("RETURN", "-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.2.0/24 -j RETURN"),
    ("MASQUERADE", "-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully"),
)


def sound(number: int, nodes: int = 3) -> NodeReport:
    """Of node ``n{number}`` of ``nodes``."""
    peers = [peer for peer in range(1, nodes + 1) if peer != number]
    tunnel = Tunnel(
        name="flannel.1",
        mac=mac(number),
        mtu=1450,
        vni=1,
        port=8472,
        local=f"192.0.2.{number}",
        underlay_mtu=1500,
        fdb={f"192.0.2.{peer}": mac(peer) for peer in peers},
        neighbours={f"10.42.{peer}.0": mac(peer) for peer in peers},
    )
    chain = Postrouting(
        place="iptables-nft", family=4, hooks=1, rules=_MASQUERADE, behind=("cali-POSTROUTING",)
    )
    return NodeReport(
        taken="2026-11-27T09:00:00Z",
        kernel="6.12.0",
        modules={"vxlan": "loaded", "nf_tables": "builtin", "xt_comment": "available"},
        programs={"iptables": "iptables v1.8.11 (nf_tables)"},
        rules=(Rules(backend="nft", family=4, total=90, canal=40, proxy=50),),
        postrouting=(chain,),
        sysctls={"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "1"},
        tunnels=(tunnel,),
        leases=(Leases(network="k8s-pod-network", total=12),),
        files={"/opt/cni/bin/calico": "same"},
        image_files={"calico": "same"},
        config="10-canal.conflist",
        churn=Churn(seconds=60, samples=60, changed={"ip filter cali-fw-cali1": 3}),
    )


def mac(number: int) -> str:
    """Of a node's tunnel."""
    return f"02:00:00:00:00:{number:02x}"


def legacy(canal: int = 0, proxy: int = 0) -> Rules:
    """Rules of the other back end: somebody's own, beside those."""
    return Rules(backend="legacy", family=4, total=canal + proxy + 2, canal=canal, proxy=proxy)
