"""A stand-in for flanneld v0.26.4 under ``--kube-subnet-mgr``, vxlan only, with its faults.

As read in its source: peers are taken by their annotations and never replayed; a dual-stack peer that lacks
either family is dropped entirely; an update in which either family is unchanged is discarded; nothing stale
is deleted at start; an existing device is kept if type, VNI, link, local, port and GBP agree; the MAC is
recovered by splitting the annotation on ``:"``; on SIGTERM its rules are deleted a second later. It looks at
the Nodes four times a second where flanneld watches them.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec

from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import NODES, Raw
from towpath.lab.canal import rules

_PREFIX = "flannel.alpha.coreos.com/"
_POLL_SECONDS = 0.25
_RESYNC_SECONDS = 5.0
_FAMILY_KEYS: dict[int, tuple[str, str]] = {
    4: ("public-ip", "backend-data"),
    6: ("public-ipv6", "backend-v6-data"),
}


class Way(msgspec.Struct, frozen=True):
    """How one family of a peer is reached."""

    subnet: str
    public: str
    mac: str


Lease = dict[int, Way]


def device(family: int) -> str:
    """The VXLAN device's name."""
    return "flannel.1" if family == 4 else "flannel-v6.1"


def lease_of(node: Raw, families: tuple[int, ...]) -> Lease | None:
    """What flanneld makes of a Node; None where it drops it."""
    notes = node["metadata"].get("annotations") or {}
    if notes.get(f"{_PREFIX}kube-subnet-manager") != "true" or notes.get(f"{_PREFIX}backend-type") != "vxlan":
        return None
    subnets: dict[int, str] = {ip_network(c).version: c for c in node["spec"].get("podCIDRs") or ()}
    found: Lease = {}
    for family in families:
        public, data = (notes.get(_PREFIX + key, "") for key in _FAMILY_KEYS[family])
        try:
            found[family] = Way(subnets[family], public, json.loads(data)["VtepMAC"])
        except (KeyError, ValueError, TypeError):
            return None
    return found


def own_mac(annotation: str) -> str:
    """The MAC flanneld recovers; empty where its way of splitting finds none."""
    parts = annotation.split(':"')
    return parts[1].split('"')[0] if len(parts) == 2 else ""


class Flanneld:
    """One node's. ``backend`` how its rules are made; ``rewrites``: every five seconds, as 0.24.3 does
    (flannel#1913)."""

    def __init__(
        self, node: str, conf: dict[str, Any], backend: rules.Backend, *, rewrites: bool = False
    ) -> None:
        self._node, self._backend, self._rewrites = node, backend, rewrites
        self._networks = {4: conf["Network"]} if conf.get("EnableIPv4", True) else {}
        if conf.get("EnableIPv6"):
            self._networks[6] = conf["IPv6Network"]
        self._families = tuple(self._networks)
        self._peers: dict[str, Lease] = {}
        self._subnets: dict[int, str] = {}
        self._ruled = 0.0

    async def run(self, client: Client, stop: asyncio.Event) -> None:
        """Until told to stop; then its rules go, a second later."""
        while not stop.is_set():
            try:
                await self._turn(client)
            except KubeError as error:
                print(f"flanneld: {error}", flush=True)  # noqa: T201
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue
        await asyncio.sleep(1)
        for family in self._families:
            rules.remove_flannel(self._backend, family)

    async def _turn(self, client: Client) -> None:
        nodes = {node["metadata"]["name"]: node for node in (await client.list(NODES.raw())).items}
        own = nodes.pop(self._node, None)
        if own is None:
            return
        if not self._subnets:
            await self._register(client, own)
        for name, node in nodes.items():
            lease = lease_of(node, self._families)
            if lease is not None:
                self._heard(name, lease)
        for name in self._peers.keys() - nodes.keys():
            self._remove(self._peers.pop(name))
        if time.monotonic() - self._ruled > _RESYNC_SECONDS:
            self._ruled = time.monotonic()
            for family, network in self._networks.items():
                if self._rewrites or not rules.has_flannel(self._backend, family):
                    rules.flannel(self._backend, family, network, self._subnets[family])

    async def _register(self, client: Client, own: Raw) -> None:
        notes = own["metadata"].get("annotations") or {}
        subnets: dict[int, str] = {ip_network(cidr).version: cidr for cidr in own["spec"]["podCIDRs"]}
        internal = [a["address"] for a in own["status"]["addresses"] if a["type"] == "InternalIP"]
        said = {f"{_PREFIX}kube-subnet-manager": "true", f"{_PREFIX}backend-type": "vxlan"}
        for family in self._families:
            local = next(a for a in internal if (":" in a) == (family == 6))
            public_key, data_key = _FAMILY_KEYS[family]
            mac = _device(family, local, subnets[family], own_mac(notes.get(_PREFIX + data_key, "")))
            said[_PREFIX + public_key] = local
            said[_PREFIX + data_key] = f'{{"VNI":1,"VtepMAC":"{mac}"}}'
        body: dict[str, Any] = {"metadata": {"annotations": said}}
        condition = {"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp"}
        body["status"] = {"conditions": [condition | {"message": "Flannel is running on this node"}]}
        await client.patch(NODES.raw(), self._node, body, type="strategic", subresource="status")
        self._subnets = subnets

    def _heard(self, name: str, lease: Lease) -> None:
        known = self._peers.get(name)
        if known is not None and any(known[family] == lease[family] for family in self._families):
            return  # the filter: an update with one unchanged family is none
        self._peers[name] = lease
        for family, way in lease.items():
            dev, gateway = device(family), str(ip_network(way.subnet).network_address)
            _ip(f"neigh replace {gateway} lladdr {way.mac} dev {dev} nud permanent")
            _run(f"bridge fdb replace {way.mac} dev {dev} dst {way.public} self permanent")
            _ip(f"{_six(family)} route replace {way.subnet} via {gateway} dev {dev} onlink proto boot")

    def _remove(self, lease: Lease) -> None:
        for family, way in lease.items():
            dev, gateway = device(family), str(ip_network(way.subnet).network_address)
            _ip(f"{_six(family)} route del {way.subnet} via {gateway} dev {dev}", check=False)
            _run(f"bridge fdb del {way.mac} dev {dev} dst {way.public} self", check=False)
            _ip(f"neigh del {gateway} dev {dev}", check=False)


def _device(family: int, local: str, subnet: str, mac: str) -> str:
    """Keep the device if it is as wanted, else make it; its MAC."""
    name = device(family)
    under = _link_of(local)
    found = json.loads(_ip(f"-j -d link show {name}", check=False) or "[]")
    wanted = {"id": 1, "link": under, "local" if family == 4 else "local6": local, "port": 8472}
    data = found[0].get("linkinfo", {}).get("info_data", {}) if found else {}
    if found and any(data.get(key) != value for key, value in wanted.items()):
        _ip(f"link del {name}")
        found = []
    if not found:
        address = f"address {mac or _random_mac()}"
        kind = f"vxlan id 1 dev {under} local {local} dstport 8472 nolearning"
        _ip(f"link add {name} {address} mtu {_mtu(under) - (50 if family == 4 else 70)} type {kind}")
    first = ip_network(subnet).network_address
    _sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
    _ip(f"{_six(family)} addr replace {first}/{first.max_prefixlen} dev {name}")
    _ip(f"link set {name} up")
    described: list[dict[str, Any]] = json.loads(_ip(f"-j link show {name}"))
    return str(described[0]["address"])


def _link_of(address: str) -> str:
    for link in json.loads(_ip("-j addr show")):
        if any(info.get("local") == address for info in link["addr_info"]):
            return str(link["ifname"])
    raise RuntimeError(f"no interface has {address}")


def _mtu(dev: str) -> int:
    return int(json.loads(_ip(f"-j link show {dev}"))[0]["mtu"])


def _random_mac() -> str:
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFE | 0x02
    return bytes(octets).hex(":")


def _six(family: int) -> str:
    return "-6" if family == 6 else "-4"


def _sysctl(path: str, value: str) -> None:
    Path("/proc/sys", path).write_text(value)


def _ip(arguments: str, *, check: bool = True) -> str:
    return _run(f"ip {arguments}", check=check)


def _run(command: str, *, check: bool = True) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if check and done.returncode != 0 and not re.search(r"File exists", done.stderr):
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout


async def _main(given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    conf = json.loads(given.net_conf if given.net_conf.startswith("{") else Path(given.net_conf).read_text())
    async with Client(config.load(given.kubeconfig), user_agent="flanneld") as client:
        await Flanneld(given.node, conf, given.backend, rewrites=given.rewrites).run(client, stop)


def main() -> None:
    """``flanneld --node NODE --net-conf FILE --kubeconfig FILE --backend nft|legacy|nftables``."""
    parser = argparse.ArgumentParser(prog="flanneld")
    for name in ("--node", "--net-conf", "--kubeconfig"):
        parser.add_argument(name, required=True)
    parser.add_argument("--backend", choices=("nft", "legacy", "nftables"), default="nft")
    parser.add_argument("--rewrites", action="store_true")
    asyncio.run(_main(parser.parse_args()))
