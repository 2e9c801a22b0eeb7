"""Plugins that hang, crash and lie; agents, API servers and definitions that are gone when DEL comes."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import json
from typing import Any

import pytest
from network_node import NetworkNode, local
from shim_harness import Shim, executable, shim
from test_networks import MACVLAN, api, fresh, node

from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import PODS

pytestmark = pytest.mark.kernel

RESULT = '{"cniVersion": "1.0.0", "ips": [{"address": "10.5.0.5/24"}]}'
# Writes down what it is given, a line a call; and then does as it is told.
SCRIPT = """
cat > $0.stdin
printf '%%s %%s ' "$CNI_COMMAND" "$CNI_IFNAME" >> $0.log; tr -d '\\n' < $0.stdin >> $0.log; echo >> $0.log
[ -e $0.$CNI_COMMAND ] && . $0.$CNI_COMMAND
[ $CNI_COMMAND = ADD ] && echo '%s'
exit 0
"""


def install(node: NetworkNode, name: str = "script", version: str = "1.0.0", **commands: str) -> None:
    """A plugin, and what it does at a command beyond writing down that it was called."""
    node.script(SCRIPT % RESULT.replace("1.0.0", version), name)
    for command in ("ADD", "DEL", "GC", "STATUS"):
        (node.plugins / f"{name}.{command}").unlink(missing_ok=True)
    for command, text in commands.items():
        (node.plugins / f"{name}.{command}").write_text(text)


def calls(node: NetworkNode, name: str = "script") -> list[tuple[str, str, dict[str, Any]]]:
    """Command, interface, configuration."""
    path = node.plugins / f"{name}.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(command, ifname, json.loads(rest)) for command, ifname, rest in (x.split(" ", 2) for x in lines)]


def commands(node: NetworkNode, name: str = "script") -> list[str]:
    return [command for command, _, _ in calls(node, name)]


def define(node: NetworkNode, *, version: str = "1.0.0") -> None:
    node.define("good", {**MACVLAN, "ipam": local("10.7.0.0/24")})
    node.define("odd", {"cniVersion": version, "type": "script"})


@pytest.mark.parametrize(
    ("does", "code", "words"),
    [
        ("sleep 600", 999, "it ran longer than 4 s and was killed"),
        ("kill -9 $$", 999, "killed by signal 9"),
        ("echo garbage; exit 0", 999, "what it printed is no result"),
        ("exit 0", 999, "what it printed is no result"),
        ("echo '[]'; exit 0", 999, "not a JSON object"),
        ("""echo '{"cniVersion": "9.9.9", "ips": []}'; exit 0""", 999, "unknown CNI version '9.9.9'"),
        ("""echo '{"code": 11, "msg": "busy", "details": "later"}'; exit 1""", 11, "busy: later (code 11)"),
        ("echo words >&2; exit 3", 999, "exit status 3: words"),
    ],
)
async def test_what_a_plugin_may_do_wrong(fresh: NetworkNode, does: str, code: int, words: str) -> None:
    fresh.seconds = 4 if does == "sleep 600" else 60
    define(fresh)
    fresh.define("good", MACVLAN)  # done without a plugin, which might not be in time on a busy machine
    install(fresh, ADD=does)
    fresh.pod("p", "good,odd,good")
    async with fresh.agent():
        found, text = await fresh.refused("ADD", "p")
        assert (found, "TP6009" in text, words in text) == (code, True, True), text
        assert "network default/odd (net2)" in text
        assert commands(fresh) == ["ADD", "DEL"]
        assert fresh.leftovers() == []
        [(reason, message)] = await fresh.events("p")
        assert reason == "TP6009"
        assert words in message
        install(fresh)
        await fresh.add("p")
        await fresh.delete("p")
        assert fresh.leftovers() == []


async def test_what_cannot_be_detached_is_said_and_kept_and_tried_again(node: NetworkNode) -> None:
    define(node)
    install(node, DEL="echo broken >&2; exit 1")
    node.pod("p", "good,odd")
    await node.add("p")
    for count in (1, 2):
        code, text = await node.refused("DEL", "p")
        assert code == 11
        assert "network default/odd (net2): plugin script: DEL: exit status 1: broken" in text
        [row] = node.journal.rows()
        assert (row.key, row.failures) == (("p", "net2"), count)
    assert node.leftovers() == ["row ('p', 'net2')"]  # all else is gone
    install(node)
    await node.delete("p")
    assert node.leftovers() == []


async def test_del_has_what_add_had_whatever_became_of_the_rest(
    fresh: NetworkNode, api: FakeApiServer
) -> None:
    define(fresh)
    install(fresh)
    fresh.pod("p", [{"name": "odd", "cni-args": {"x": 1}}, {"name": "good"}])
    async with fresh.agent():
        await fresh.add("p")
    fresh.define("odd", {"cniVersion": "1.0.0", "type": "second", "other": True})
    api.remove(PODS, "p", "default")
    await api.down()
    async with fresh.agent(known=False):  # another agent, which never saw the pod
        await fresh.delete("p")
        assert fresh.leftovers() == []
    (_, _, added), (_, _, deleted) = calls(fresh)
    assert deleted.pop("prevResult")["ips"] == [{"address": "10.5.0.5/24"}]
    assert added == deleted
    assert added["args"] == {"cni": {"x": 1}}
    await api.up()


async def test_after_the_agent_died_in_the_middle_del_undoes_what_was_begun(
    fresh: NetworkNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(fresh)
    install(fresh)
    fresh.pod("p", "good,odd")

    async def dies(*_: Any, **__: Any) -> None:
        raise ConnectionAbortedError("here the agent dies, and undoes nothing")

    with monkeypatch.context() as patched:
        async with fresh.agent():
            patched.setattr(fresh.journal, "done", dies)
            patched.setattr(fresh.networks, "_take_back", dies)
            await fresh.refused("ADD", "p")
    async with fresh.agent():
        assert [row.done for row in fresh.journal.of("p")] == [False, False]
        await fresh.delete("p")
        assert fresh.leftovers() == []
        await fresh.add("p")
        await fresh.delete("p")
        assert fresh.leftovers() == []
    assert commands(fresh) == ["DEL", "ADD", "DEL"]


async def test_what_no_del_comes_for_goes_with_another_pods_call(
    fresh: NetworkNode, api: FakeApiServer
) -> None:
    define(fresh)
    install(fresh)
    fresh.pod("p", "odd")
    fresh.pod("q")
    async with fresh.agent():
        await fresh.add("p")
        await fresh.add("q")
        await fresh.networks.collect()
        await fresh.delete("q")
        assert commands(fresh) == ["ADD"]  # it is not known to be gone
    api.remove(PODS, "p", "default")
    fresh.attach.boot_id = "boot-2"
    async with fresh.agent():
        await fresh.networks.collect()
        install(fresh, DEL="exit 1")
        await fresh.add("q")
        await fresh.delete("q")
        install(fresh)
        await fresh.delete("q")
        assert commands(fresh) == ["ADD", "DEL"]  # it failed, and waits
        fresh.now += 20
        await fresh.delete("q")
        assert commands(fresh) == ["ADD", "DEL", "DEL"]
        assert fresh.journal.rows() == ()


async def test_gc_detaches_what_is_not_listed_and_asks_plugins_that_can(
    fresh: NetworkNode, api: FakeApiServer
) -> None:
    define(fresh, version="1.1.0")
    install(fresh, version="1.1.0")
    for pod in ("p", "q"):
        fresh.pod(pod, "odd,good")
    async with fresh.agent():
        await fresh.add("p")
        await fresh.add("q")
        listed = {"cni.dev/valid-attachments": [{"containerID": "q", "ifname": "eth0"}]}
        await fresh.call("GC", "", listed)
        assert commands(fresh) == ["ADD", "ADD", "GC"]  # the API server has the pod: one proof is not enough
        api.remove(PODS, "p", "default")
        await fresh.call("GC", "", listed)
        assert commands(fresh)[3:] == ["DEL", "GC"]
        assert calls(fresh)[-1][2]["cni.dev/valid-attachments"] == [{"containerID": "q", "ifname": "net1"}]
        assert {row.call.container_id for row in fresh.journal.rows()} == {"q"}
        await fresh.delete("q")


async def test_an_annotation_that_cannot_be_written_is_written_later(
    node: NetworkNode, api: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(node)
    node.pod("p", "good")
    refusing = node.telling._write

    async def away(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(node.telling, "_write", away)
    await node.add("p")
    assert node.status("p") == []
    assert [ref.name for ref in node.telling.waiting] == ["p"]
    monkeypatch.setattr(node.telling, "_write", refusing)
    await node.networks.collect()
    assert [one["interface"] for one in node.status("p")] == ["eth0", "net1"]
    assert node.telling.waiting == ()
    await node.delete("p")
    assert node.leftovers() == []
