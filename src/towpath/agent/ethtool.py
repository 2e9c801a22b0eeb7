"""Transmit checksum offload of a device, read and switched through SIOCETHTOOL (needs only NET_ADMIN)."""

import ctypes
import fcntl
import socket
import struct

from towpath.model.net import Addr

_SIOCETHTOOL = 0x8946
_ETHTOOL_GTXCSUM, _ETHTOOL_STXCSUM = 0x16, 0x17


def tx_checksum(dev: str) -> bool:
    """Whether the stack leaves checksums of packets through ``dev`` to the device. Raises OSError."""
    return bool(_ethtool(dev, _ETHTOOL_GTXCSUM, 0))


def set_tx_checksum(dev: str, on: bool) -> None:
    """What ``ethtool -K DEV tx on|off`` does: off, the kernel computes every checksum itself.

    Segmentation offload goes off with it (it depends on it). Raises OSError.
    """
    _ethtool(dev, _ETHTOOL_STXCSUM, int(on))


def _ethtool(dev: str, command: int, value: int) -> int:
    data = ctypes.create_string_buffer(struct.pack("=II", command, value), 8)
    request = struct.pack("@16sP16x", dev.encode(), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    answer: int = struct.unpack("=II", data.raw)[1]
    return answer


class SystemOffload:
    """``offload.OffloadPort`` of the namespace this process is in."""

    def open(self, address: Addr, port: int) -> socket.socket:
        """A non-blocking UDP socket bound to ``address``."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind((str(address), port))
        except OSError:
            sock.close()
            raise
        return sock

    def index(self, dev: str) -> int:
        """The interface index."""
        return socket.if_nametoindex(dev)

    def tx_checksum(self, dev: str) -> bool:
        """Whether checksums are left to the device."""
        return tx_checksum(dev)

    def set_tx_checksum(self, dev: str, on: bool) -> None:
        """Switch that."""
        set_tx_checksum(dev, on)
