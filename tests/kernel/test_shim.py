"""What a runtime sees of the shim: commands, errors, an agent that is down, late, slow or mad."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_harness import (
    ROOT,
    Recorder,
    Shim,
    attachment,
    executable,
    finish,
    handler,
    hasty,
    hasty_executable,
    netns,
    server,
    shim,
)

from patience import PATIENT, true, within
from towpath.cni import wire
from towpath.cni.request import Request
from towpath.cni.server import Executed, Server, serve
from towpath.cni.version import SUPPORTED

pytestmark = pytest.mark.kernel


async def test_add_reaches_the_handler_and_its_result_the_caller(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAME=p;X=y"
    status, stdout, stderr = await shim.run("ADD", attachment(netns) | {"CNI_ARGS": args})
    assert (status, stderr) == (0, b"")
    assert json.loads(stdout)["ips"] == [{"interface": 0, "address": "10.42.0.2/32"}]
    [(_, request)] = handler.calls
    assert (request.container_id, request.ifname, request.netns) == ("c1", "eth0", str(netns))
    assert request.args["K8S_POD_NAME"] == "p"
    assert request.environment["CNI_ARGS"] == args
    assert request.path == (str(shim.path.parent),)
    assert len(bytes.fromhex(request.request_id)) == 16


async def test_result_in_the_version_of_the_configuration(shim: Shim, server: Server, netns: Path) -> None:
    _, stdout, _ = await shim.run("ADD", attachment(netns), {"cniVersion": "0.2.0", "name": "n"})
    assert json.loads(stdout) == {"cniVersion": "0.2.0", "ip4": {"ip": "10.42.0.2/32"}, "dns": {}}


async def test_the_other_commands(shim: Shim, server: Server, handler: Recorder, netns: Path) -> None:
    assert await shim.run("DEL", attachment(netns)) == (0, b"", b"")
    assert await shim.run("STATUS") == (0, b"", b"")
    assert await shim.refused("CHECK", attachment(netns)) == (3, "eth0 is gone: 10.42.0.2")
    assert await shim.refused("GC") == (999, "internal error: ZeroDivisionError: a defect")
    assert handler.names == ["delete", "status", "check", "gc"]


@pytest.mark.parametrize(
    ("stdin", "version"),
    [(f'{{"cniVersion": "{v}"}}', v) for v in SUPPORTED]
    + [
        ("", "1.1.0"),
        ("{}", "1.1.0"),
        ('{"cniVersion":"9.9.9"}', "1.1.0"),
        ('{"CNIVERSION" :"0.4.0"}', "0.4.0"),
    ]
    + [('{"cniVersion":"1.0', "1.1.0"), ('{"cniVersion":', "1.1.0"), ('"cniVersion"' + "x" * 300, "1.1.0")],
)
async def test_version_needs_no_agent(shim: Shim, stdin: str, version: str) -> None:
    status, stdout, _ = await shim.run("VERSION", config=stdin.encode())
    assert status == 0
    assert json.loads(stdout) == {"cniVersion": version, "supportedVersions": list(SUPPORTED)}


async def test_version_does_not_wait_for_a_stdin_that_stays_open(shim: Shim) -> None:
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        shim.path, env={"CNI_COMMAND": "VERSION"}, stdin=read, stdout=asyncio.subprocess.PIPE
    )
    stdout, _ = await asyncio.wait_for(process.communicate(), PATIENT)
    os.close(read)
    os.close(write)
    assert json.loads(stdout)["cniVersion"] == "1.1.0"


async def test_without_a_command_it_says_what_it_is(shim: Shim) -> None:
    status, stdout, stderr = await shim.run("")
    assert (status, stdout) == (0, b"")
    assert b"towpath-cni" in stderr
    assert all(v.encode() in stderr for v in SUPPORTED)


async def test_environment_errors_need_no_agent(shim: Shim) -> None:
    for command, missing in {
        "ADD": "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME",
        "CHECK": "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME",
        "DEL": "CNI_CONTAINERID,CNI_IFNAME",
    }.items():
        assert await shim.refused(command) == (4, f"required env variables [{missing}] missing: ")
    assert await shim.refused('X"\\\x01é') == (4, 'unknown CNI_COMMAND: X"\\???: ')


async def test_errors_name_the_version_of_the_configuration(shim: Shim) -> None:
    _, stdout, _ = await shim.run("STATUS", config={"name": "n", "cniVersion": "1.0.0"})
    assert json.loads(stdout)["cniVersion"] == "1.0.0"


async def test_configuration_beyond_all_bounds(shim: Shim, server: Server, netns: Path) -> None:
    code, text = await shim.refused("ADD", attachment(netns), b" " * (2 << 20))
    assert code == 6
    assert "larger" in text
    big = {"cniVersion": "1.1.0", "name": "n", "x": "y" * 900_000}
    assert (await shim.run("ADD", attachment(netns), big))[0] == 0
    env = {f"CNI_X{i}": "x" * 100_000 for i in range(4)}
    assert (await shim.refused("ADD", attachment(netns) | env))[0] == 4


async def test_status_of_an_agent_that_is_down_takes_less_than_a_second(shim: Shim) -> None:
    async def ask() -> None:
        code, text = await shim.refused("STATUS")
        assert code == 50
        assert "No such file" in text

    await within(1, ask)


async def test_status_of_an_agent_that_hangs_takes_less_than_a_second(shim: Shim) -> None:
    async def ask() -> None:
        assert (await shim.refused("STATUS"))[0] == 50

    with listener(shim.socket):
        await within(1, ask)


@pytest.mark.parametrize(("command", "seconds"), [("ADD", 1.2), ("CHECK", 0.2)])
async def test_patience_ends_with_try_again_later(
    hasty: Shim, netns: Path, command: str, seconds: float
) -> None:
    async def ask() -> None:
        started = time.monotonic()
        code, text = await hasty.refused(command, attachment(netns))
        assert code == 11
        assert str(hasty.socket) in text
        assert time.monotonic() - started > seconds - 0.2

    await within(seconds + 2, ask)


async def test_an_agent_that_comes_late_is_in_time(shim: Shim, handler: Recorder, netns: Path) -> None:
    calls = [await shim.start(command, attachment(netns)) for command in ("ADD", "DEL")]
    await asyncio.sleep(0.3)
    server = await serve(shim.socket, handler)
    assert [(await finish(call))[0] for call in calls] == [0, 0]
    assert sorted(handler.names) == ["add", "delete"]
    await server.close()


async def test_an_agent_killed_in_the_middle_is_asked_again_as_the_same_request(
    shim: Shim, handler: Recorder, netns: Path
) -> None:
    with listener(shim.socket) as sock:
        call = await shim.start("ADD", attachment(netns))
        first = await take_request(sock)
        answered_half = await take_request(sock, wire.answer(0, b"{}" * 100)[:50])
    shim.socket.unlink()
    server = await serve(shim.socket, handler)
    assert (await finish(call))[0] == 0
    [(_, request)] = handler.calls
    assert first["TOWPATH_REQUEST"] == answered_half["TOWPATH_REQUEST"] == request.request_id
    assert request.descriptors is not None
    await server.close()


@pytest.mark.parametrize("answer", [b"Z", b"HTTP/1.1 400 Bad Request\r\n", b"R\0\0\0\0\xff\xff\xff\xff"])
async def test_an_answer_not_of_the_protocol_ends_the_call(shim: Shim, netns: Path, answer: bytes) -> None:
    for command, code in (("ADD", 5), ("STATUS", 50)):
        with listener(shim.socket) as sock:
            call = await shim.start(command, attachment(netns))
            await take_request(sock, answer, keep_open=True)
            status, stdout, _ = await finish(call)
            assert status == 1
            assert json.loads(stdout)["code"] == code
        shim.socket.unlink()


async def test_a_caller_that_hangs_up_has_its_add_undone(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    entered, proceed = asyncio.Event(), asyncio.Event()

    async def slowly(r: Request) -> None:
        entered.set()
        await asyncio.wait_for(r.cancelled.wait(), PATIENT)
        await proceed.wait()

    handler.on_add = slowly
    add = await shim.start("ADD", attachment(netns))
    await entered.wait()
    add.kill()
    await finish(add)
    delete = await shim.start("DEL", attachment(netns))
    other = await shim.run("DEL", attachment(netns, "c2"))
    assert other[0] == 0
    assert [(n, r.container_id) for n, r in handler.calls] == [("add", "c1"), ("delete", "c2")]
    proceed.set()
    assert (await finish(delete))[0] == 0
    assert [(n, r.container_id) for n, r in handler.calls[2:]] == [("delete", "c1")] * 2
    assert handler.calls[2][1] is handler.calls[0][1]


async def test_patience_that_ends_while_the_agent_works_undoes_the_add(
    hasty: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    async def until_given_up(r: Request) -> None:
        await r.cancelled.wait()

    handler.on_add = until_given_up
    code, text = await hasty.refused("ADD", attachment(netns))
    assert code == 11
    assert "broke off" in text
    await true(lambda: handler.names == ["add", "delete"])


async def test_a_burst_loses_nothing(shim: Shim, server: Server, handler: Recorder, netns: Path) -> None:
    before = descriptors()
    answers = await asyncio.gather(*(shim.run("ADD", attachment(netns, f"c{i}")) for i in range(60)))
    assert {status for status, _, _ in answers} == {0}
    assert {r.container_id for _, r in handler.calls} == {f"c{i}" for i in range(60)}
    await true(lambda: descriptors() <= before + 2)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder everyone may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_only_root_is_served(executable: Path, handler: Recorder, open_folder: Path) -> None:
    shutil.copy2(executable, open_folder / "towpath-cni")
    (open_folder / "towpath-cni.socket").write_text(f"{open_folder}/cni.sock\n")
    shim = Shim(open_folder / "towpath-cni", open_folder / "cni.sock")
    server = await serve(shim.socket, handler, mode=0o666)
    try:
        status, stdout, _ = await shim.run("STATUS", user=65534)
    except OSError as err:
        pytest.skip(f"this user namespace maps no second user: {err}")
    finally:
        await server.close()
    assert status == 1
    assert "65534" in json.loads(stdout)["details"]
    assert handler.calls == []


@pytest.fixture
def hosted(shim: Shim) -> Shim:
    """What architectures other than x86-64 get: the same code over a C library."""
    flags = ["-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2"]
    subprocess.run(["cc", *flags, "-o", shim.path, ROOT / "shim/towpath-cni.c"], check=True)
    return shim


async def test_the_hosted_build_behaves_alike(
    hosted: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    status, stdout, _ = await hosted.run("VERSION", config={"cniVersion": "0.4.0"})
    assert (status, json.loads(stdout)["cniVersion"]) == (0, "0.4.0")
    outcome: list[Executed] = []

    async def run(r: Request) -> None:
        outcome.append(await r.execute(f"{hosted.path.parent}/plugin", {"CNI_COMMAND": "ADD"}, b"in"))

    plugin = hosted.path.with_name("plugin")
    plugin.write_text("#!/bin/sh\ncat; exit 4\n")
    plugin.chmod(0o755)
    handler.on_add = run
    assert (await hosted.run("ADD", attachment(netns)))[0] == 0
    assert outcome == [Executed(4, b"in", b"")]
    assert (await hosted.refused("ADD", attachment("/nowhere")))[0] == 8


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def listener(path: Path) -> socket.socket:
    """An agent that accepts and says nothing."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    sock.setblocking(False)
    return sock


async def take_request(sock: socket.socket, reply: bytes = b"", keep_open: bool = False) -> dict[str, str]:
    """Read a whole request, reply with some bytes, hang up."""
    loop = asyncio.get_running_loop()
    peer, _ = await loop.sock_accept(sock)
    data = b""
    while len(data) < 8 or len(data) < 8 + wire.body_length(data[:8]):
        data += await loop.sock_recv(peer, 1 << 16)
    await loop.sock_sendall(peer, reply)
    if keep_open:
        await asyncio.sleep(0.05)
    peer.close()
    return wire.parse_body(data[8:])[0]
