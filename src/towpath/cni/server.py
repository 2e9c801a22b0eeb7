"""The agent's side of CNI: takes calls from shims, checks them, has the handler do them, answers."""

import asyncio
import os
import socket
import weakref
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from towpath.cni.args import parse_args, with_args
from towpath.cni.connection import Connection
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.parse import check_container_id, check_ifname, parse_net_conf, peek_version
from towpath.cni.request import Handler, PodDescriptors, Request, is_for_ipam
from towpath.cni.version import allows
from towpath.cni.wire import BadFrame, Executed
from towpath.log import get_logger

__all__ = ["Executed", "Handler", "PodDescriptors", "Request", "Server", "serve"]

_BACKLOG = 1024
_MOST_CALLS = 256  # at once, not counting those that wait for a plugin
_SECONDS_TO_ASK = 10.0
_SECONDS_TO_DRAIN = 5.0
_SECONDS_WITHOUT_DESCRIPTORS = 0.1

log = get_logger("towpath.cni")


Attend = Callable[[Request], Awaitable[None]]
"""Takes the calls of ``towpath-ns``, which no runtime makes. Raises CniError."""


async def serve(
    path: Path | str, handler: Handler, attend: Attend | None = None, *, mode: int = 0o600
) -> "Server":
    """Listen on the Unix socket ``path`` and serve shims until ``Server.close``.

    The socket appears under its name complete and by one rename, so that an agent takes over from another
    without a moment in which there is none. Only callers with uid 0 are served. Raises OSError.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(str(partial))
        partial.chmod(mode)
        sock.listen(_BACKLOG)
        partial.replace(path)
    except OSError:
        sock.close()
        partial.unlink(missing_ok=True)
        raise
    return Server(sock, path, handler, attend)


class Server:
    """Made by ``serve``."""

    def __init__(self, sock: socket.socket, path: Path, handler: Handler, attend: Attend | None) -> None:
        self._sock, self._path, self._handler, self._attend = sock, path, handler, attend
        self._inode = path.stat().st_ino
        self._loop = asyncio.get_running_loop()
        self._calls: set[asyncio.Task[None]] = set()
        self._elsewhere = 0
        self._turns: weakref.WeakValueDictionary[tuple[str, str, bool], asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        self._loop.add_reader(sock, self._accept)

    async def close(self) -> None:
        """Take no more calls, finish those under way, and leave; what takes too long is cut off.

        A shim that is cut off asks the next agent. The socket's name goes unless another agent has it.
        """
        self._loop.remove_reader(self._sock)
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()
        self._sock.close()
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=_SECONDS_TO_DRAIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as err:  # out of descriptors: the caller waits in the backlog until some are back
            log.error("cni_accept_failed", error=str(err))
            self._loop.remove_reader(self._sock)
            self._loop.call_later(_SECONDS_WITHOUT_DESCRIPTORS, self._resume)
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._serve(Connection(sock)))
        self._calls.add(task)
        task.add_done_callback(self._done)
        if self._full:
            self._loop.remove_reader(self._sock)

    @property
    def _full(self) -> bool:
        return len(self._calls) - self._elsewhere >= _MOST_CALLS

    def _done(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._resume()
        if not task.cancelled() and task.exception() is not None:
            log.error("cni_call_failed", exc_info=task.exception())

    def _resume(self) -> None:
        if self._sock.fileno() >= 0 and not self._full:
            self._loop.add_reader(self._sock, self._accept)

    async def _serve(self, connection: Connection) -> None:
        try:
            if (uid := connection.peer_uid()) != 0:
                log.warning("cni_caller_refused", uid=uid)
                error = CniError(
                    ErrorCode.INTERNAL, "the Towpath agent serves root only", f"the caller's uid is {uid}"
                )
                await connection.answer(1, error.encode())
                return
            async with asyncio.timeout(_SECONDS_TO_ASK):
                environment, stdin, descriptors = await connection.receive_request()
        except (BadFrame, OSError, TimeoutError) as err:
            log.warning("cni_request_unreadable", error=str(err))
            return
        else:
            try:
                await self._call(connection, environment, stdin, descriptors)
            finally:
                if descriptors is not None:
                    descriptors.close()
        finally:
            connection.close()

    async def _call(
        self,
        connection: Connection,
        environment: Mapping[str, str],
        stdin: bytes,
        descriptors: PodDescriptors | None,
    ) -> None:
        connection.watch()
        try:
            request = read_request(environment, stdin, descriptors)
        except CniError as err:
            await connection.answer(1, err.encode(peek_version(stdin)))
            return
        request.cancelled, request.executor = connection.hung_up, partial(self._execute, connection)
        request.opener = connection.hand_over
        async with self._turn(request):
            try:
                stdout = await self._handle(request)
            except CniError as err:
                log.info(
                    "cni_refused", **_names(request), code=int(err.code), msg=err.msg, details=err.details
                )
                await connection.answer(1, err.encode(request.config.cni_version))
                return
            if not await connection.answer(0, stdout) and request.command == "ADD":
                log.warning("cni_caller_hung_up", **_names(request))
                await self._handler.delete(request)

    async def _execute(
        self, connection: Connection, path: str, env: Mapping[str, str], stdin: bytes, seconds: float | None
    ) -> Executed:
        """A call holds no place meanwhile: the plugin may call us itself, since we are its IPAM plugin, and
        pods that wait for their plugins must not keep these from being served.
        """
        self._elsewhere += 1
        self._resume()
        try:
            return await connection.execute(path, env, stdin, seconds)
        finally:
            self._elsewhere -= 1

    def _turn(self, request: Request) -> asyncio.Lock:
        """A runtime that gave up on an ADD may send DEL before the ADD has noticed: one after the other.

        A plugin's call to its IPAM plugin comes while the runtime's call that it serves is under way.
        """
        if not request.container_id:
            return asyncio.Lock()
        key = (request.container_id, request.ifname, is_for_ipam(request.config))
        return self._turns.setdefault(key, asyncio.Lock())

    async def _handle(self, r: Request) -> bytes:
        try:
            match r.command:
                case "ADD":
                    result = await self._handler.add(r)
                    try:
                        return result.to_version(r.config.cni_version)
                    except CniError:
                        await self._handler.delete(r)
                        raise
                case "DEL":
                    await self._handler.delete(r)
                case "CHECK":
                    await self._handler.check(r)
                case "STATUS":
                    await self._handler.status(r)
                case "GC":
                    await self._handler.gc(r)
                case "ATTEND" if self._attend is not None:
                    await self._attend(r)
                case "ATTEND":
                    raise CniError(ErrorCode.UNAVAILABLE, "this agent has nothing for towpath-ns to do")
        except CniError:
            raise
        except Exception as err:
            log.exception("cni_handler_failed", **_names(r))
            raise CniError(ErrorCode.INTERNAL, f"internal error: {type(err).__name__}", str(err)) from err
        return b""


def read_request(environment: Mapping[str, str], stdin: bytes, descriptors: PodDescriptors | None) -> Request:
    """A call as its handler gets it. Raises CniError, and nothing else, whatever the caller sent.

    What DEL needs is little, and only that little can be wrong with it.
    """
    command = environment.get("CNI_COMMAND", "")
    if command not in ("ADD", "DEL", "CHECK", "STATUS", "GC", "ATTEND"):
        raise CniError(ErrorCode.BAD_ENVIRONMENT, f"unknown CNI_COMMAND: {command}")
    config = parse_net_conf(stdin, lenient=command == "DEL")
    if not allows(config.cni_version, command):
        raise CniError(
            ErrorCode.INCOMPATIBLE_VERSION, f"config version {config.cni_version} does not allow {command}"
        )
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if command in ("ADD", "DEL", "CHECK") or (command == "ATTEND" and container_id):
        check_container_id(container_id)
        check_ifname(ifname)
    try:
        args = parse_args(environment.get("CNI_ARGS", ""))
        config = with_args(config, args)
    except CniError:
        if command != "DEL":
            raise
        args = {}
    netns_error = environment.get("TOWPATH_NETNS_ERROR", "")
    if command in ("ADD", "CHECK") and descriptors is None:
        raise CniError(ErrorCode.BAD_NETNS, netns_error or "no network namespace was handed over")
    return Request(
        command=command,
        config=config,
        container_id=container_id,
        netns=environment.get("CNI_NETNS", ""),
        ifname=ifname,
        args=args,
        path=tuple(filter(None, environment.get("CNI_PATH", "").split(":"))),
        request_id=environment.get("TOWPATH_REQUEST", ""),
        descriptors=descriptors,
        netns_error=netns_error,
        environment={k: v for k, v in environment.items() if k.startswith("CNI_")},
    )


def _names(r: Request) -> dict[str, str]:
    return {"command": r.command, "container": r.container_id, "ifname": r.ifname, "network": r.config.name}
