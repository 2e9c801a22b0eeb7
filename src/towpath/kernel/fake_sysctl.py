"""Sysctls of a fake namespace: those Towpath touches, with the kernel's defaults and couplings."""

from collections.abc import Callable, Iterable
from errno import EINVAL, ENOENT

_CONF4 = {"accept_local": 0, "arp_announce": 0, "arp_ignore": 0, "forwarding": 0, "proxy_arp": 0}
_CONF4 |= {"promote_secondaries": 0, "route_localnet": 0, "rp_filter": 0}
_CONF6 = {"accept_dad": 1, "accept_ra": 1, "addr_gen_mode": 0, "disable_ipv6": 0, "forwarding": 0}
_CONF6 |= {"keep_addr_on_down": 0, "proxy_ndp": 0}
_NEIGH = {"proxy_delay": 80, "proxy_qlen": 64}
_DEVICE = {
    "net/ipv4/conf": _CONF4,
    "net/ipv6/conf": _CONF6,
    "net/ipv4/neigh": _NEIGH,
    "net/ipv6/neigh": _NEIGH,
}
_GLOBAL = {"net/ipv4/ip_nonlocal_bind": 0, "net/ipv6/conf/all/forwarding": 0}
_ALIASES = {"net/ipv4/ip_forward": "net/ipv4/conf/all/forwarding"}
# Written for "all", these are written for "default" and for every device too.
_COUPLED = frozenset({("net/ipv4/conf", "forwarding"), ("net/ipv6/conf", "forwarding")})
_COUPLED |= {("net/ipv6/conf", "disable_ipv6")}


class FakeSysctls:
    """``devices`` gives the names there are; ``changed(path)`` hears of each value that became another."""

    def __init__(self, devices: Callable[[], Iterable[str]], changed: Callable[[str], None]) -> None:
        self._devices, self._changed = devices, changed
        self._values: dict[str, int] = {}

    def read(self, paths: Iterable[str]) -> dict[str, str]:
        """Those of ``paths`` that exist."""
        found = {path: self._get(path) for path in paths}
        return {path: str(value) for path, value in found.items() if value is not None}

    def write(self, path: str, value: str) -> None:
        """Raises OSError."""
        path = _ALIASES.get(path, path)
        if self._get(path) is None:
            raise OSError(ENOENT, "No such file or directory")
        try:
            number = int(value)
        except ValueError as error:
            raise OSError(EINVAL, "Invalid argument") from error
        folder, name, leaf = _split(path)
        if name == "all" and (folder, leaf) in _COUPLED:
            for each in ("default", *self._devices()):
                self._set(f"{folder}/{each}/{leaf}", number)
        self._set(path, number)

    def made(self, name: str) -> None:
        """A device came: it takes its values from "default"."""
        for folder, leaves in _DEVICE.items():
            for leaf in leaves:
                default = self._values.get(f"{folder}/default/{leaf}")
                if default is not None:
                    self._values[f"{folder}/{name}/{leaf}"] = default

    def gone(self, name: str) -> None:
        """A device went, and its values with it."""
        self._values = {path: value for path, value in self._values.items() if _split(path)[1] != name}

    def _set(self, path: str, value: int) -> None:
        if self._get(path) != value:
            self._values[path] = value
            self._changed(path)

    def _get(self, path: str) -> int | None:
        path = _ALIASES.get(path, path)
        folder, name, leaf = _split(path)
        if name not in (*self._devices(), "all", "default"):
            return self._values.get(path, _GLOBAL.get(path))
        if folder.endswith("neigh") and name in ("all", "default"):
            return None  # "default" is the first namespace's alone
        initial = _DEVICE.get(folder, {}).get(leaf)
        return None if initial is None else self._values.get(path, initial)


def _split(path: str) -> tuple[str, str, str]:
    """Folder, device, leaf."""
    front, _, leaf = path.rpartition("/")
    folder, _, name = front.rpartition("/")
    return folder, name, leaf
