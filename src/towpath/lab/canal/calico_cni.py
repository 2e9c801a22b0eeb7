"""A stand-in for Calico's CNI plugin as Canal configures it: a veth as Calico wires it, addresses by
host-local.

host-local is the real one, from CNI_PATH, given the ranges that ``usePodCidr`` stands for: those are in
``/etc/calico-stand-in.json`` or the plugin's own configuration (``podCIDRs``).
"""

import json
import os
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NoReturn

from towpath.desired.names import HOST_LL, HOST_MAC, host_ifname

POD_CIDRS = "podCIDRs"


def main() -> NoReturn:
    """One call, as the CNI specification has it."""
    command, config = os.environ["CNI_COMMAND"], json.load(sys.stdin)
    try:
        if command == "ADD":
            json.dump(add(config), sys.stdout)
        elif command == "DEL":
            delete(config)
        elif command == "VERSION":
            json.dump({"cniVersion": "0.3.1", "supportedVersions": ["0.3.0", "0.3.1", "1.0.0"]}, sys.stdout)
    except (RuntimeError, OSError, KeyError) as error:
        json.dump(
            {"cniVersion": config.get("cniVersion", "0.3.1"), "code": 999, "msg": str(error)}, sys.stdout
        )
        sys.exit(1)
    sys.exit(0)


def add(config: dict[str, Any]) -> dict[str, Any]:
    """Addresses, then the link: the order in which Calico does it."""
    leased = json.loads(_host_local(config))
    addresses = [entry["address"].split("/")[0] for entry in leased["ips"]]
    host, ifname = _host_end(), os.environ["CNI_IFNAME"]
    netns, mtu = os.environ["CNI_NETNS"], config.get("mtu", 1450)
    _ip(f"link add {host} mtu {mtu} type veth peer name tmp{host[4:]} mtu {mtu}")
    _ip(f"link set tmp{host[4:]} netns {netns} name {ifname}")
    _ip(f"link set {host} address {HOST_MAC} up")
    _wire_host(host, addresses)
    inside = [f"ip link set {ifname} up"]
    for address in addresses:
        if ":" in address:
            inside += [f"ip -6 addr add {address}/128 dev {ifname} nodad"]
            inside += [f"ip -6 route add default via {HOST_LL} dev {ifname}"]
        else:
            inside += [f"ip addr add {address}/32 dev {ifname}"]
            inside += [f"ip route add 169.254.1.1 dev {ifname} scope link"]
            inside += [f"ip route add default via 169.254.1.1 dev {ifname}"]
    six = "".join(f"echo 0 > /proc/sys/net/ipv6/conf/{n}/disable_ipv6;" for n in ("all", "default", "lo"))
    _run(["nsenter", f"--net={netns}", "sh", "-ec", f"ip link set lo up;{six}" + ";".join(inside)])
    return {
        "cniVersion": config["cniVersion"],
        "interfaces": [{"name": host}],
        "ips": [
            {
                "version": "6" if ":" in address else "4",
                "address": f"{address}/{128 if ':' in address else 32}",
            }
            for address in addresses
        ],
        "dns": {},
    }


def _wire_host(host: str, addresses: list[str]) -> None:
    """Settings and routes of the node's end, as Calico's dataplane leaves them."""
    four, six = Path(f"/proc/sys/net/ipv4/conf/{host}"), Path(f"/proc/sys/net/ipv6/conf/{host}")
    (six / "accept_ra").write_text("0")
    if any(":" not in address for address in addresses):
        (four / "route_localnet").write_text("1")
        (Path("/proc/sys/net/ipv4/neigh") / host / "proxy_delay").write_text("0")
        (four / "proxy_arp").write_text("1")
        (four / "forwarding").write_text("1")
    if any(":" in address for address in addresses):
        (six / "proxy_ndp").write_text("1")
        (six / "forwarding").write_text("1")
    for address in addresses:
        _ip(f"{'-6 ' if ':' in address else ''}route replace {address} dev {host} scope link")


def delete(config: dict[str, Any]) -> None:
    """Addresses first, then the link."""
    _host_local(config)
    subprocess.run(["ip", "link", "del", _host_end()], capture_output=True, check=False)


def _host_local(config: dict[str, Any]) -> str:
    ipam = dict(config["ipam"])
    cidrs = config.get(POD_CIDRS) or ["0.0.0.0/0"]
    ipam["ranges"] = [[{"subnet": str(ip_network(cidr))}] for cidr in cidrs]
    program = next(
        Path(folder, "host-local")
        for folder in os.environ["CNI_PATH"].split(":")
        if Path(folder, "host-local").exists()
    )
    given = json.dumps({**config, "ipam": ipam})
    return _run([str(program)], given)


def _host_end() -> str:
    args = dict(pair.split("=", 1) for pair in os.environ.get("CNI_ARGS", "").split(";") if "=" in pair)
    return host_ifname(args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"])


def _ip(arguments: str) -> str:
    return _run(["ip", *arguments.split()])


def _run(command: list[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout
