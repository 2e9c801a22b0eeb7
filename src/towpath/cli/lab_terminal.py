"""The caller's end of ``lab exec``, ``lab logs`` and ``lab pcap``: terminal modes, signals, streams."""

import json
import os
import shutil
import signal
import socket
import sys
import termios
import threading
import tty as tty_modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from towpath.cli.cluster import ClusterOptions
from towpath.kube.client import Client
from towpath.kube.kinds import PODS
from towpath.lab.client import LabClient, result_of


def run_in_lab(client: LabClient, target: str, argv: tuple[str, ...], *, container: str, tty: bool) -> int:
    """Run and return the command's exit code. Raises LabError."""
    sys.stdout.flush()
    arguments = {"target": target, "command": list(argv), "container": container, "tty": tty}
    if tty:
        arguments["term"] = os.environ.get("TERM", "xterm")
    with client.open("exec", (0, 1, 2), **arguments) as connection, _raw_terminal(connection, tty):
        code: int = result_of(connection)["exit"]
        return code


@contextmanager
def _raw_terminal(connection: socket.socket, tty: bool) -> Iterator[None]:
    """Keys go to the lab unread, and its terminal has our size, for as long as the block runs."""
    if not tty or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)

    def resized(*_: object) -> None:
        columns, rows = shutil.get_terminal_size()
        with suppress(OSError):
            connection.sendall(json.dumps({"resize": [rows, columns]}).encode() + b"\n")

    signal.signal(signal.SIGWINCH, resized)
    resized()
    tty_modes.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)


def pod_logs(client: LabClient, namespace: str, pod: str, options: dict[str, Any]) -> None:
    """Stream a pod's log to stdout, by way of the API server. Raises CliError."""
    query = {key: str(value).lower() for key, value in options.items() if value not in ("", False)}

    async def stream(api: Client) -> None:
        async for piece in api.stream(PODS.path(namespace, pod, "log"), query=query):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()

    ClusterOptions(client.kubeconfig, "").run(stream)


def capture(client: LabClient, node: str, out: int, **arguments: Any) -> int:
    """Capture until interrupted or counted; how many packets. Raises LabError."""
    with client.open("pcap", (out,), node=node, **arguments) as connection:

        def stop(*_: object) -> None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, stop)
            signal.signal(signal.SIGTERM, stop)
        result = result_of(connection, progress=lambda text: click.echo(text, err=True))
        return int(result["packets"])
