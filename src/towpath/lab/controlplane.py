"""The lab's control plane as one process: the API server, and the controllers as one of its tasks.

``python -m towpath.lab.controlplane --dir DIR --listen-fd N[,M]`` serves TLS on inherited sockets (or on
127.0.0.1:PORT with ``--port``) and prints READY. DIR holds tokens.csv, pki/, state.db and nodes/.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import secrets
import signal
import socket
import ssl
import sys
from ipaddress import ip_network
from pathlib import Path

from aiohttp import web

from towpath.lab.apiserver.app import application
from towpath.lab.apiserver.auth import TokensError, read_tokens
from towpath.lab.apiserver.bootstrap import bootstrap
from towpath.lab.apiserver.builtins import builtin_registry
from towpath.lab.apiserver.call import Server
from towpath.lab.apiserver.kubeconfig import kubeconfig
from towpath.lab.apiserver.pki import ensure_pki
from towpath.lab.apiserver.services import Allocator
from towpath.lab.apiserver.store import Store, StoreError

SERVICE_CIDRS = "10.43.0.0/16,fd00:10:43::/112"
ADVERTISE = "172.30.0.1,fd00:172:30::1"
GRACE_SECONDS = 0.5  # for requests under way when the process is told to stop


def arguments(argv: list[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m towpath.lab.controlplane", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="state: tokens.csv, pki/, state.db, nodes/")
    parser.add_argument("--listen-fd", default="", help="inherited listening sockets, comma separated")
    parser.add_argument("--port", type=int, help="listen on 127.0.0.1:PORT (0: any) instead")
    parser.add_argument(
        "--service-cidr", default=SERVICE_CIDRS, help="one or two networks, first family preferred"
    )
    parser.add_argument("--cluster-cidr", default="10.42.0.0/16,fd00:10:42::/56", help="pod networks")
    parser.add_argument("--advertise", default=ADVERTISE, help="addresses of port 6443 as nodes see them")
    parser.add_argument(
        "--san", action="append", default=[], help="further names or addresses of the certificate"
    )
    parser.add_argument("--no-controllers", action="store_true", help="API server only")
    return parser.parse_args(argv)


def sockets(options: argparse.Namespace) -> list[socket.socket]:
    """The listening sockets."""
    if options.listen_fd:
        return [socket.socket(fileno=int(fd)) for fd in options.listen_fd.split(",")]
    return [socket.create_server(("127.0.0.1", options.port or 0), backlog=512)]


def admin_token(path: Path) -> str:
    """The first token of tokens.csv, which is made, for user admin, where it is missing."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f'{secrets.token_hex(16)},admin,admin,"system:masters"\n')
    return next(iter(read_tokens(path)))


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Raises StoreError, TokensError, OSError."""
    options.dir.mkdir(parents=True, exist_ok=True)
    token = admin_token(options.dir / "tokens.csv")
    pki = ensure_pki(options.dir / "pki", options.san)
    store = Store(options.dir / "state.db")
    server = Server(
        store,
        builtin_registry(),
        read_tokens(options.dir / "tokens.csv"),
        Allocator.of(options.service_cidr),
        options.dir / "nodes",
    )
    bootstrap(server, [a for a in options.advertise.split(",") if a])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.certificate, pki.key)
    runner = web.AppRunner(
        application(server), access_log=None, handler_cancellation=True, shutdown_timeout=GRACE_SECONDS
    )
    await runner.setup()
    gc.collect()
    gc.freeze()  # what is here stays; and objects of the API hold no cycles, so look for garbage seldom
    gc.set_threshold(20_000, 20, 50)
    listening = sockets(options)
    for sock in listening:
        await web.SockSite(runner, sock, ssl_context=context).start()
    port = listening[0].getsockname()[1]
    url = f"https://127.0.0.1:{port}"
    (options.dir / "kubeconfig").write_text(kubeconfig(url, pki.ca.read_text(), token))
    print("READY", url, flush=True)  # noqa: T201 - the launcher waits for this line
    controllers = asyncio.create_task(_controllers(options, runner, token, pki.ca.read_text()))
    try:
        await _until_stopped(controllers)
    finally:
        controllers.cancel()
        await asyncio.gather(controllers, return_exceptions=True)
        await runner.cleanup()
        store.close()


async def _controllers(options: argparse.Namespace, runner: web.AppRunner, token: str, ca: str) -> None:
    """Run the controllers against this very server, on a loopback socket of their own that needs no TLS:
    the first listening socket may belong to another network namespace."""
    if options.no_controllers:
        await asyncio.Event().wait()
    from towpath.kube.client import Client
    from towpath.kube.config import ClientConfig
    from towpath.lab.controllers import Settings, run

    sock = socket.create_server(("127.0.0.1", 0), backlog=128)
    await web.SockSite(runner, sock).start()
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    networks = tuple(ip_network(c) for c in options.cluster_cidr.split(",") if c)
    async with Client(ClientConfig(server=url, source="controlplane", token=token)) as client:
        await run(client, Settings(cluster_cidrs=networks, root_ca=ca))


async def _until_stopped(controllers: asyncio.Task[None]) -> None:
    """Until SIGTERM or SIGINT, or until the controllers have failed, whose error it raises."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait((waiting, controllers), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if controllers.done():
        controllers.result()


def main() -> int:
    """Entry of the process."""
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(serve(arguments(sys.argv[1:])))
        except (StoreError, TokensError, OSError, ValueError) as e:
            print(f"controlplane: {e}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
