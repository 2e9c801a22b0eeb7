"""An attachment as the bytes kept in the lease store, and back.

The text form is stable: a store outlives the program that wrote it, in both directions of an upgrade. Unknown
keys are ignored, absent ones take their default.
"""

from ipaddress import ip_address, ip_network
from typing import Literal

import msgspec

from towpath.model.attachment import Attachment, Bandwidth, PodRef, PortMapping


class _Port(msgspec.Struct, omit_defaults=True):
    host_port: int
    container_port: int
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: str | None = None


class _Row(msgspec.Struct, omit_defaults=True):
    container_id: str
    ifname: str
    network: str
    netns: str
    host_ifname: str
    addresses: list[str]
    mac: str
    mtu: int
    boot_id: str
    request_id: str = ""
    pod: PodRef | None = None
    ports: list[_Port] = []
    bandwidth: Bandwidth | None = None
    routes: list[str] = []
    aliases: list[str] = []
    adopted: bool = False


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Row)


def encode(att: Attachment) -> bytes:
    """One line of JSON."""
    return _ENCODER.encode(
        _Row(
            container_id=att.container_id,
            ifname=att.ifname,
            network=att.network,
            netns=att.netns,
            host_ifname=att.host_ifname,
            addresses=[str(a) for a in att.addresses],
            mac=att.mac,
            mtu=att.mtu,
            boot_id=att.boot_id,
            request_id=att.request_id,
            pod=att.pod,
            ports=[
                _Port(p.host_port, p.container_port, p.protocol, str(p.host_ip) if p.host_ip else None)
                for p in att.ports
            ],
            bandwidth=att.bandwidth,
            routes=[str(r) for r in att.routes],
            aliases=list(att.aliases),
            adopted=att.adopted,
        )
    )


def decode(body: bytes) -> Attachment:
    """Raises msgspec.MsgspecError (malformed) or ValueError (an address that is none)."""
    row = _DECODER.decode(body)
    return Attachment(
        container_id=row.container_id,
        ifname=row.ifname,
        network=row.network,
        netns=row.netns,
        host_ifname=row.host_ifname,
        addresses=tuple(ip_address(a) for a in row.addresses),
        mac=row.mac,
        mtu=row.mtu,
        boot_id=row.boot_id,
        request_id=row.request_id,
        pod=row.pod,
        ports=tuple(
            PortMapping(
                host_port=p.host_port,
                container_port=p.container_port,
                protocol=p.protocol,
                host_ip=ip_address(p.host_ip) if p.host_ip else None,
            )
            for p in row.ports
        ),
        bandwidth=row.bandwidth,
        routes=tuple(ip_network(r) for r in row.routes),
        aliases=tuple(row.aliases),
        adopted=row.adopted,
    )
