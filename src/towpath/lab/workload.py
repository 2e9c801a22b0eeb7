"""The echo workload: what a pod without a command does. It answers on every declared port, naming itself.

TCP and UDP: see ``probe.echo``. SCTP: see ``workload_sctp``.
"""

import selectors
import signal
import socket
import sys
from collections.abc import Callable

from towpath.lab.runtime_api import Echo
from towpath.lab.workload_sctp import IPPROTO_SCTP, serve_sctp
from towpath.probe.echo import Datagrams, Listener


def serve(echo: Echo | None, listening: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM; ``listening`` is called when every port is open.

    Raises OSError (EADDRINUSE) when a port is taken: the container then fails.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    selector = selectors.DefaultSelector()
    identity = echo.identity if echo else "?"
    ports = echo.ports if echo else ()
    for wanted in ports:
        if wanted.protocol == "UDP":
            Datagrams(selector, identity, wanted.port)
        elif wanted.protocol == "TCP":
            Listener(selector, identity, wanted.port)
    if sctp := [wanted.port for wanted in ports if wanted.protocol == "SCTP"]:
        _serve_sctp(selector, identity, sctp)
    listening()
    if not selector.get_map():
        signal.pause()
    while True:
        for key, events in selector.select():
            key.data(events)


def _serve_sctp(selector: selectors.BaseSelector, identity: str, ports: list[int]) -> None:
    """By the kernel's own SCTP where it has one (a raw responder would compete with it), else by hand."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP).close()
    except OSError:
        serve_sctp(selector, identity, ports)
        return
    for port in ports:
        Listener(selector, identity, port, IPPROTO_SCTP)
