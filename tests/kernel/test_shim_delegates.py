"""Plugins the agent has executed by the shim: run as libcni would run them, and none that it would not."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from shim_harness import Recorder, Shim, attachment, executable, handler, netns, server, shim

from patience import true
from towpath.cni import wire
from towpath.cni.request import Request
from towpath.cni.server import Executed, Server

pytestmark = pytest.mark.kernel


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    await true(holds)


async def gone(pid: int) -> None:
    """Wait for the end of a process; it may be a zombie for as long as its new parent likes."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    await until(ended)


class Delegation:
    """Installs a plugin, has ADD execute it, gives back what became of it."""

    def __init__(self, shim: Shim, handler: Recorder, netns: Path) -> None:
        self.shim, self.handler, self.netns = shim, handler, netns
        self.folder = shim.path.parent

    def install(self, script: str, name: str = "plugin") -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    async def execute(
        self, path: Path | str, env: Mapping[str, str] | None = None, stdin: bytes = b"{}"
    ) -> Executed:
        outcome: list[Executed] = []

        async def run(r: Request) -> None:
            outcome.append(await r.execute(str(path), {"CNI_COMMAND": "ADD"} if env is None else env, stdin))

        self.handler.on_add = run
        own = attachment(self.netns) | {
            "HOME": "/home/of/runtime",
            "CNI_ARGS": "FROM=runtime;IgnoreUnknown=1",
        }
        status, stdout, _ = await self.shim.run("ADD", own)
        assert (status, json.loads(stdout)["cniVersion"]) == (0, "1.1.0")
        return outcome[0]


@pytest.fixture
def delegation(shim: Shim, server: Server, handler: Recorder, netns: Path) -> Delegation:
    return Delegation(shim, handler, netns)


async def test_status_output_and_input(delegation: Delegation) -> None:
    path = delegation.install("cat; echo problem >&2; exit 3")
    assert await delegation.execute(path, stdin=b'{"name":"n"}') == Executed(3, b'{"name":"n"}', b"problem\n")
    assert await delegation.execute(delegation.install("kill -9 $$")) == Executed(
        128 + signal.SIGKILL, b"", b""
    )
    assert await delegation.execute(delegation.install("exit 0"), stdin=b"x" * 500_000) == Executed(
        0, b"", b""
    )


async def test_environment_is_the_callers_with_cni_variables_replaced(delegation: Delegation) -> None:
    env = {"CNI_COMMAND": "DEL", "CNI_IFNAME": "net1", "CNI_X": "a=b\nc"}
    path = delegation.install("env -0", "env0")
    done = await delegation.execute(path, {**env, "CNI_PATH": "/elsewhere"})
    found = dict(line.split("=", 1) for line in done.stdout.decode().rstrip("\0").split("\0"))
    # The folders are the caller's: what is executed may be the shim itself, which goes by them.
    folders = found.pop("CNI_PATH")
    assert str(path.parent) in folders.split(":")
    assert "/elsewhere" not in folders
    assert {k: v for k, v in found.items() if k.startswith("CNI_")} == env
    assert found["HOME"] == "/home/of/runtime"


async def test_it_runs_in_the_hosts_namespace_with_nothing_of_ours_open(delegation: Delegation) -> None:
    done = await delegation.execute(
        delegation.install("readlink /proc/self/ns/net; ls /proc/self/fd; grep SigIgn /proc/self/status")
    )
    namespace, *descriptors, ignored = done.stdout.decode().split("\n")[:-1]
    assert namespace == str(Path("/proc/self/ns/net").readlink())
    assert descriptors == ["0", "1", "2", "3"]  # 3 is ls reading the folder
    assert int(ignored.split()[1], 16) >> (signal.SIGPIPE - 1) & 1 == 0


async def test_output_and_input_at_once_do_not_block_each_other(delegation: Delegation) -> None:
    path = delegation.install(
        "head -c 900000 /dev/zero; head -c 900000 /dev/zero >&2; cat >/dev/null; echo end"
    )
    done = await delegation.execute(path, stdin=b"x" * 400_000)
    assert done.status == 0
    assert done.stdout == bytes(900_000) + b"end\n"
    assert len(done.stderr) <= 1 << 16


async def test_endless_output_is_cut_off(delegation: Delegation) -> None:
    done = await delegation.execute(delegation.install("exec cat /dev/zero"))
    assert done == Executed(128 + signal.SIGKILL, b"", b"printed more than 1 MiB")


async def test_several_in_one_call(shim: Shim, server: Server, handler: Recorder, netns: Path) -> None:
    plugin = Delegation(shim, handler, netns).install("cat")
    outcomes: list[bytes] = []

    async def three(r: Request) -> None:
        runs = [r.execute(str(plugin), {"CNI_COMMAND": "ADD"}, str(i).encode()) for i in range(3)]
        outcomes.extend(done.stdout for done in await asyncio.gather(*runs))

    handler.on_add = three
    assert (await shim.run("ADD", attachment(netns)))[0] == 0
    assert outcomes == [b"0", b"1", b"2"]


async def test_what_cannot_be_executed(delegation: Delegation) -> None:
    assert await delegation.execute(delegation.folder / "absent") == Executed(
        127, b"", b"No such file or directory"
    )
    script = delegation.install("")
    script.chmod(0o644)
    assert await delegation.execute(script) == Executed(127, b"", b"Permission denied")


async def test_only_plugins_of_cni_path_and_only_cni_variables(delegation: Delegation) -> None:
    plugin = delegation.install("echo ran")
    inner = delegation.folder / "inner"
    inner.mkdir()
    (inner / "plugin").symlink_to(plugin)
    for path in (
        "/bin/sh",
        "sh",
        "",
        "/",
        f"{plugin}/",
        f"{delegation.folder}/..",
        f"{delegation.folder}/inner/plugin",
    ):
        if not path:
            continue
        done = await delegation.execute(path)
        assert (done.status, done.stdout) == (127, b"")
        assert done.stderr.startswith(b"refused")
    for env in ({"LD_PRELOAD": "/x.so"}, {"CNI_COMMAND": "ADD", "PATH": "/x"}):
        assert await delegation.execute(plugin, env) == Executed(127, b"", b"refused: not a CNI_ variable")
    assert (await delegation.execute(plugin, {})).stderr == b"refused: not a request to execute anything"


async def test_one_being_installed_is_waited_for(delegation: Delegation) -> None:
    """libcni does so too: a copy under way gives ETXTBSY."""
    plugin = delegation.folder / "copied"
    plugin.write_bytes(Path("/bin/true").read_bytes())
    plugin.chmod(0o755)
    copying = plugin.open("ab")
    asyncio.get_running_loop().call_later(0.5, copying.close)
    assert (await delegation.execute(plugin)).status == 0


async def test_a_slow_one_does_not_use_up_the_patience(delegation: Delegation) -> None:
    assert (await delegation.execute(delegation.install("sleep 1.4; echo done"))).stdout == b"done\n"


async def test_hanging_up_while_one_runs(shim: Shim, server: Server, handler: Recorder, netns: Path) -> None:
    plugin = Delegation(shim, handler, netns).install("echo $$ > $0.pid; exec sleep 60")
    errors: list[Exception] = []

    async def run(r: Request) -> None:
        for _ in range(2):
            try:
                await r.execute(str(plugin), {"CNI_COMMAND": "ADD"}, b"")
            except ConnectionError as err:
                errors.append(err)

    handler.on_add = run
    call = await shim.start("ADD", attachment(netns))
    pid = Path(f"{plugin}.pid")
    await until(lambda: pid.exists() and bool(pid.read_text().strip()))
    call.kill()
    await call.wait()
    await until(lambda: handler.names == ["add", "delete"])
    await gone(int(Path(f"{plugin}.pid").read_text()))  # a runtime kills the shim at its deadline
    assert len(errors) == 2
    assert handler.names == ["add", "delete"]
    assert handler.calls[0][1].cancelled.is_set()


async def test_one_that_takes_too_long_is_killed_with_all_it_started(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    made = Delegation(shim, handler, netns)
    hanging = made.install("sleep 600 & echo $! > $0.child; echo $$ > $0.pid; echo begun; wait", "hanging")
    next_one = made.install("echo next", "next")
    outcomes: list[Executed] = []

    async def run(r: Request) -> None:
        outcomes.append(await r.execute(str(hanging), {"CNI_COMMAND": "ADD"}, b"", 3))
        outcomes.append(await r.execute(str(next_one), {"CNI_COMMAND": "DEL"}, b"", 600))

    handler.on_add = run
    assert (await shim.run("ADD", attachment(netns)))[0] == 0
    assert outcomes == [
        Executed(128 + signal.SIGKILL, b"begun\n", b"", late=True),
        Executed(0, b"next\n", b""),
    ]
    for file in ("child", "pid"):
        await gone(int(Path(f"{hanging}.{file}").read_text()))


async def test_a_kill_that_comes_too_late_is_passed_over(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    plugin = Delegation(shim, handler, netns).install("echo $CNI_IFNAME")
    outcomes: list[bytes] = []

    async def run(r: Request) -> None:
        for number in range(20):
            done = await r.execute(str(plugin), {"CNI_IFNAME": str(number)}, b"", 0.001 * number)
            outcomes.append(b"" if done.late else done.stdout)

    handler.on_add = run
    assert (await shim.run("ADD", attachment(netns)))[0] == 0
    assert len(outcomes) == 20
    assert all(found in (b"", b"%d\n" % number) for number, found in enumerate(outcomes))


async def test_without_a_shim_there_is_nobody_to_execute() -> None:
    from towpath.cni.parse import parse_net_conf

    request = Request(command="ADD", config=parse_net_conf(b'{"name":"n"}'))
    with pytest.raises(ConnectionError):
        await request.execute("/opt/cni/bin/x", {}, b"")


def test_strings_that_would_break_the_frame_are_refused_here() -> None:
    for path, env in (("/a\0b", {}), ("", {}), ("/a", {"CNI_X": "\0"})):
        with pytest.raises(ValueError, match="NUL"):
            wire.execute(path, env, b"")
