"""``towpath net``: what a cluster's networks look like from outside, and what is wrong with them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from towpath.agent.network_definitions import DEFINITIONS
from towpath.cli.main import cli
from towpath.cli.net import findings
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import CONFIG_MAPS, PODS
from towpath.multinet.annotation import NETWORKS
from towpath.multinet.status import STATUS

MACVLAN = {"cniVersion": "1.0.0", "type": "macvlan", "ipam": {"type": "static"}}


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    server = await FakeApiServer.start()
    yield server
    await server.down()


def define(api: FakeApiServer, name: str, config: Any = None, namespace: str = "default") -> None:
    text = config if isinstance(config, str) else json.dumps(config) if config else ""
    api.put(DEFINITIONS, {"metadata": {"name": name, "namespace": namespace}, "spec": {"config": text}})


def pod(
    api: FakeApiServer, name: str, asked: str = "", got: list[dict[str, Any]] | None = None, **status: Any
) -> None:
    annotations = {NETWORKS: asked} if asked else {}
    if got is not None:
        annotations[STATUS] = json.dumps(got)
    meta = {"name": name, "namespace": "default", "annotations": annotations}
    api.put(PODS, {"metadata": meta, "spec": {}, "status": {"phase": "Running", **status}})


async def towpath(api: FakeApiServer, folder: Path, *arguments: str) -> Result:
    """The command in a thread, as it has an event loop of its own."""
    cluster = {"name": "c", "cluster": {"server": api.config().server}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    file = folder / "kubeconfig"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "users": [{"name": "u", "user": {}}],
                "contexts": [context],
                "current-context": "c",
            }
        )
    )
    return await asyncio.to_thread(
        CliRunner().invoke, cli, ["net", *arguments, "--kubeconfig", str(file)], catch_exceptions=False
    )


def fill(api: FakeApiServer) -> None:
    define(api, "good", MACVLAN)
    define(api, "bad", "{")
    define(api, "odd", {"cniVersion": "1.0.0", "type": "strange"})
    define(api, "disk")
    eth0 = {"name": "towpath", "interface": "eth0", "ips": ["10.42.0.5"], "default": True}
    net1 = {
        "name": "default/good",
        "interface": "net1",
        "ips": ["10.9.0.1"],
        "mac": "02:00:00:00:00:01",
        "mtu": 1400,
    }
    pod(api, "well", "good", [eth0, net1])
    pod(api, "plain", podIPs=[{"ip": "10.42.0.9"}])


async def test_ls_shows_what_each_network_is(api: FakeApiServer, tmp_path: Path) -> None:
    fill(api)
    done = await towpath(api, tmp_path, "ls")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines[1].startswith("default/bad - - - 0 TP6004: its configuration is not JSON")
    assert lines[2:] == [
        "default/disk (on the nodes) - - 0 ok",
        "default/good macvlan static 1.0.0 1 ok",
        "default/odd - - - 0 TP6008: type 'strange' is not among the plugins that may be run",
    ]
    assert (await towpath(api, tmp_path, "ls", "-n", "other")).output == "no networks\n"
    shown = json.loads((await towpath(api, tmp_path, "ls", "-o", "json")).output)
    assert [one["network"] for one in shown][2] == "default/good"


async def test_show_has_a_line_an_interface(api: FakeApiServer, tmp_path: Path) -> None:
    fill(api)
    lines = (await towpath(api, tmp_path, "show", "well")).output.splitlines()
    assert lines[1].split()[:4] == ["eth0", "*", "towpath", "10.42.0.5"]
    assert lines[2].split() == ["net1", "default/good", "10.9.0.1", "02:00:00:00:00:01", "1400", "-"]
    assert (
        "has the pod network alone: 10.42.0.9"
        in (await towpath(api, tmp_path, "show", "default/plain")).output
    )
    with pytest.raises(Exception, match="no pod default/absent"):
        await towpath(api, tmp_path, "show", "absent")


async def test_check_names_what_is_wrong(api: FakeApiServer, tmp_path: Path) -> None:
    define(api, "good", MACVLAN)
    pod(api, "well", "good", [{"interface": "net1"}])
    done = await towpath(api, tmp_path, "check")
    assert (done.exit_code, done.output) == (0, "1 pod: no findings\n")
    fill(api)
    pod(api, "lost", "absent")
    pod(api, "malformed", "good,,")
    pod(api, "without", "good", [])
    pod(api, "typo", '[{"name": "good", "interfce": "x"}]', [{"interface": "net1"}])
    pod(api, "finished", "absent", phase="Succeeded")
    pod(api, "badly", "bad")
    done = await towpath(api, tmp_path, "check", "-o", "json")
    assert done.exit_code == 3
    assert [(one["code"], one["object"].rpartition("/")[2]) for one in json.loads(done.output)] == [
        ("TP6004", "bad"),
        ("TP6008", "odd"),
        ("TP6002", "lost"),
        ("TP6001", "malformed"),
        ("TP6001", "typo"),
        ("TP6012", "without"),
    ]


async def test_check_reads_the_agents_settings(api: FakeApiServer, tmp_path: Path) -> None:
    fill(api)
    text = "network_defaults: [wide]\nnetwork_types: strange\nnetwork_isolation: true\n"
    meta = {"name": "towpath-config", "namespace": "kube-system"}
    api.put(CONFIG_MAPS, {"metadata": meta, "data": {"agent.yaml": text}})
    done = await towpath(api, tmp_path, "check")
    assert "TP6013 network_defaults" in done.output
    assert "TP6008" not in done.output
    api.put(CONFIG_MAPS, {"metadata": meta, "data": {"agent.yaml": "["}})
    with pytest.raises(Exception, match=r"agent\.yaml cannot be read"):
        await towpath(api, tmp_path, "check")


async def test_verify_is_told_of_the_same(api: FakeApiServer) -> None:
    pod(api, "p", "nowhere")
    async with Client(api.config()) as client:
        assert await findings(client) == []  # no such networks here
        define(api, "mv", MACVLAN)
        assert [(one.code, one.object) for one in await findings(client)] == [("TP6002", "Pod/default/p")]
