"""Devices of a fake namespace: what ``links`` does on the running kernel."""

from collections.abc import Callable
from errno import EBADF, EEXIST, EINVAL, ENODEV, EOPNOTSUPP
from typing import Literal

from towpath.model.net import Bridge, Ifb, Link, Veth, Vxlan

Event = Literal["made", "up", "carrier", "renumbered", "down", "gone"]
_MIN_MTU, _MAX_MTU = 68, 65535


class FakeDevice:
    """A device. ``peer`` is a veth's other end, maybe in another namespace; ``home`` the namespace.

    ``makes_link_local``: the kernel gives it an IPv6 link-local address once it is up (a pod's end, and
    loopback; never one that ``AddLink`` made).
    """

    def __init__(
        self, home: "FakeLinks", name: str, kind: Vxlan | Ifb | Bridge | None, mtu: int, mac: str
    ) -> None:
        self.home, self.name, self.kind, self.mtu, self.mac = home, name, kind, mtu, mac
        self.up = False
        self.master: str | None = None
        self.peer: FakeDevice | None = None
        self.makes_link_local = False

    def view(self) -> Link:
        """The device as a value."""
        kind: Vxlan | Veth | Ifb | Bridge | None = self.kind
        if self.peer is not None:
            kind = Veth(peer=self.peer.name, peer_mac=self.peer.mac, peer_mtu=self.peer.mtu)
        return Link(name=self.name, kind=kind, mtu=self.mtu, mac=self.mac, up=self.up, master=self.master)


class FakeLinks:
    """The devices of one namespace, by name. ``changed`` hears of what other state depends on."""

    def __init__(self, changed: Callable[[Event, FakeDevice], None]) -> None:
        self._changed = changed
        self._serial = 0
        self.devices: dict[str, FakeDevice] = {"lo": FakeDevice(self, "lo", None, 65536, "00:00:00:00:00:00")}

    def get(self, name: str) -> FakeDevice:
        """Raises OSError with ENODEV."""
        device = self.devices.get(name)
        if device is None:
            raise OSError(ENODEV, "No such device")
        return device

    def tell(self, event: Event, device: FakeDevice) -> None:
        """Let the namespace know."""
        self._changed(event, device)

    def create(self, link: Link, pod: "FakeLinks | None") -> None:
        """Make ``link``, or nothing if it is there just as wanted. Raises OSError."""
        for name in self._below(link):
            self.get(name)
        if link.name in self.devices:
            self._adopt(link)
            return
        match link.kind:
            case Veth():
                device = self._pair(link, link.kind, pod if pod is not None else self)
            case Vxlan():
                device = self._vxlan(link, link.kind)
            case Ifb() | Bridge():
                device = self._new(link.name, link.kind, link.mtu or 1500, link.mac)
            case None:
                raise OSError(EINVAL, "only vxlan, veth, ifb and bridge devices can be made")
        device.master = link.master
        if link.up:
            self.change(link.name, up=True)

    def change(
        self, name: str, mtu: int | None = None, mac: str | None = None, up: bool | None = None
    ) -> None:
        """Raises OSError."""
        device = self.get(name)
        if mtu is not None and mtu != device.mtu:
            if not _MIN_MTU <= mtu <= self._bound(device.kind):
                raise OSError(EINVAL, "Invalid argument")
            device.mtu = mtu
        if mac is not None and isinstance(device.kind, Ifb):
            raise OSError(EOPNOTSUPP, "Operation not supported")
        if mac is not None:
            device.mac = mac
            self.tell("renumbered", device)
        if up is not None and up != device.up:
            device.up = up
            self.tell("up" if up else "down", device)

    def delete(self, name: str) -> None:
        """With a veth goes its peer, with a device the tunnels over it. Raises OSError."""
        device = self.devices.get(name)
        if device is None:
            return
        if name == "lo":
            raise OSError(EOPNOTSUPP, "Operation not supported")
        self._remove(device)
        if device.peer is not None:
            device.peer.home._remove(device.peer)

    def _remove(self, device: FakeDevice) -> None:
        del self.devices[device.name]
        for other in self.devices.values():
            if other.master == device.name:
                other.master = None
        self.tell("gone", device)
        for other in list(self.devices.values()):
            if isinstance(other.kind, Vxlan) and other.kind.underlay == device.name:
                self.delete(other.name)

    def _below(self, link: Link) -> list[str]:
        names = [link.kind.underlay] if isinstance(link.kind, Vxlan) else []
        return names + ([link.master] if link.master is not None else [])

    def _adopt(self, link: Link) -> None:
        found = self.devices[link.name].view()
        wanted_mac, wanted_mtu = link.mac or found.mac, link.mtu or found.mtu
        same = (link.kind, link.master, wanted_mac, wanted_mtu) == (
            found.kind,
            found.master,
            found.mac,
            found.mtu,
        )
        if isinstance(link.kind, Veth) or not same:
            raise OSError(EEXIST, "File exists")
        if link.up:
            self.change(link.name, up=True)

    def _new(self, name: str, kind: Vxlan | Ifb | Bridge | None, mtu: int, mac: str | None) -> FakeDevice:
        self._serial += 1
        made_up = f"02:fa:{id(self) >> 8 & 255:02x}:{self._serial >> 16:02x}:{self._serial >> 8 & 255:02x}"
        device = FakeDevice(self, name, kind, mtu, mac or f"{made_up}:{self._serial & 255:02x}")
        self.devices[name] = device
        self.tell("made", device)
        return device

    def _pair(self, link: Link, veth: Veth, pod: "FakeLinks") -> FakeDevice:
        if veth.peer in pod.devices or (pod is self and veth.peer == link.name):
            raise OSError(EEXIST, "File exists")
        near = self._new(link.name, None, link.mtu or 1500, link.mac)
        far = pod._new(veth.peer, None, veth.peer_mtu or 1500, veth.peer_mac or None)
        near.peer, far.peer, far.makes_link_local = far, near, True
        return near

    def _vxlan(self, link: Link, kind: Vxlan) -> FakeDevice:
        same = (kind.vni, kind.port, kind.local.version, kind.gbp)
        for other in self.devices.values():
            if isinstance(vx := other.kind, Vxlan) and (vx.vni, vx.port, vx.local.version, vx.gbp) == same:
                raise OSError(EEXIST, "A VXLAN device with the specified VNI already exists")
        bound = self._bound(kind)
        return self._new(link.name, kind, min(link.mtu or bound, bound), link.mac)

    def _bound(self, kind: Vxlan | Ifb | Bridge | None) -> int:
        """The largest mtu; a tunnel's leaves room for its headers on the device below."""
        if isinstance(kind, Vxlan) and kind.underlay in self.devices:
            return self.devices[kind.underlay].mtu - (50 if kind.local.version == 4 else 70)
        return _MAX_MTU


def home_of(namespaces: dict[int, FakeLinks], netns: int | None) -> FakeLinks | None:
    """The namespace behind descriptor ``netns``. Raises OSError with EBADF."""
    if netns is None:
        return None
    if netns not in namespaces:
        raise OSError(EBADF, "Bad file descriptor")
    return namespaces[netns]
