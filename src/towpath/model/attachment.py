"""An attachment: one interface of one container, as ADD promised it and as the store remembers it."""

from typing import Literal

import msgspec

from towpath.model.net import Addr, Net


class PortMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A published port. ``host_ip`` None (or unspecified) means every local address of the family."""

    host_port: int
    container_port: int
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: Addr | None = None


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """Limits as the CNI bandwidth capability gives them: rates in bit/s, bursts in bits, 0 for no limit.

    Ingress is traffic to the pod, egress from it.
    """

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


class PodRef(msgspec.Struct, frozen=True, kw_only=True):
    """The Kubernetes pod an attachment belongs to."""

    namespace: str
    name: str
    uid: str = ""


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to wire, re-wire, check and undo one interface, without asking anyone.

    ``host_ifname`` is the host end ("cali" + 11 hex digits); ``addresses`` at most one a family;
    ``mac`` and ``mtu`` those of the pod's end; ``pod`` None outside Kubernetes (podman);
    ``netns`` the path as the runtime gave it; ``request_id`` identifies the ADD that made it, so that the
    shim's retry after an agent restart is told from a second ADD; ``boot_id`` the boot it was made in.
    ``adopted``: Canal wired it, and the pod's side is as Calico leaves it (no permanent neighbours).
    """

    container_id: str
    ifname: str
    network: str
    netns: str
    host_ifname: str
    addresses: tuple[Addr, ...]
    mac: str
    mtu: int
    boot_id: str
    request_id: str = ""
    pod: PodRef | None = None
    ports: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth | None = None
    routes: tuple[Net, ...] = ()
    aliases: tuple[str, ...] = ()
    adopted: bool = False
