"""From Multus's memory of its pods to the journal, and back; which configuration is in force meanwhile."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any, cast

import pytest

from towpath.migrate import multus, networks
from towpath.migrate.conflist import CanalConf, parse
from towpath.migrate.multus import MultusConf
from towpath.migrate.node import Node, Stopped
from towpath.migrate.place import Place
from towpath.migrate.plan import TOWPATH_CONFLIST, Direction, Facts, plan
from towpath.migrate.steps import RestoreConf, SwitchConf
from towpath.model.attachment import Attachment
from towpath.multinet.derive import stdin
from towpath.multinet.journal import FILE, Journal, read_rows

CANAL = {
    "cniVersion": "0.3.1",
    "name": "k8s-pod-network",
    "plugins": [{"type": "calico", "ipam": {"type": "host-local"}}, {"type": "portmap"}],
}
STORAGE = {"cniVersion": "1.0.0", "name": "storage", "type": "macvlan", "ipam": {"type": "host-local"}}
CHAIN = {
    "cniVersion": "1.0.0",
    "name": "chain",
    "plugins": [{"type": "bridge", "capabilities": {"mac": True}}, {"type": "tuning"}],
}
ARGS = [
    ["IgnoreUnknown", "true"],
    ["K8S_POD_NAMESPACE", "default"],
    ["K8S_POD_NAME", "web"],
    ["K8S_POD_UID", "uid-web"],
]
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.7.0.2/24"}]}


def delegate(name: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As Go writes the structure: every field that it does not leave out."""
    text = base64.b64encode(json.dumps(config).encode()).decode()
    conf: dict[str, Any] = {"Conf": {"ipam": {}, "dns": {}}, "ConfList": {"cniVersion": "", "Plugins": None}}
    conf["ConfList" if "plugins" in config else "Conf"] |= config
    flags = {"IsFilterV4Gateway": False, "IsFilterV6Gateway": False}
    return {**conf, "Name": name, **flags, "Bytes": text, **more}


def cache(config: dict[str, Any], ifname: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": base64.b64encode(json.dumps(config).encode()).decode(),
        "ifName": ifname,
        "networkName": config["name"],
        "netns": "/var/run/netns/cni-1",
        "cniArgs": ARGS,
        "result": RESULT,
        **more,
    }


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Multus's folder, with one pod on two networks."""
    folder = tmp_path / "multus"
    (folder / "results").mkdir(parents=True)
    delegates = [
        delegate("", CANAL),
        delegate("default/storage", STORAGE),
        delegate("infra/chain", CHAIN, ifnameRequest="data0", **{"default-route": ["10.7.0.1"]}),
    ]
    (folder / "c1").write_text(json.dumps(delegates))
    results = {
        "k8s-pod-network-c1-eth0": cache(CANAL, "eth0"),
        "storage-c1-net1": cache(STORAGE, "net1"),
        "chain-c1-data0": cache(CHAIN, "data0", capabilityArgs={"mac": "02:00:00:00:00:07"}),
    }
    for name, content in results.items():
        (folder / "results" / name).write_text(json.dumps(content))
    return folder


def conf(memory: Path, kind: str = "multus") -> MultusConf:
    own = {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": kind, "cniDir": str(memory)}
    found = multus.parse("00-multus.conf", json.dumps(own))
    assert found is not None
    return found


class OneNode:
    """What these steps want of a node."""

    def __init__(self, folder: Path, *containers: str) -> None:
        self.boot_id, self._containers = "boot", containers
        self.place = Place(cni_conf=folder / "net.d", state_dir=folder / "state")
        for path in (self.place.cni_conf, self.place.state_dir):
            path.mkdir(exist_ok=True)

    def wired(self) -> list[Attachment]:
        return [
            Attachment(
                container_id=one, ifname="eth0", network="towpath", netns="", host_ifname="cali1",
                addresses=(), mac="", mtu=1450, boot_id="boot",
            )
            for one in self._containers
        ]  # fmt: skip


def facts(memory: Path) -> Facts:
    canal: CanalConf = parse("10-canal.conflist", json.dumps(CANAL))
    return Facts(conf=canal, tools=(), save_folder="/tmp/none", switch_text="{}", multus=conf(memory))


def test_whose_a_configuration_is(memory: Path) -> None:
    assert conf(memory, "multus-shim").network == "multus-cni-network"
    listed = {"name": "m", "plugins": [{"type": "multus"}]}
    found = multus.parse("00-multus.conflist", json.dumps(listed))
    assert found is not None
    assert found.cni_dir == "/var/lib/cni/multus"
    for other in (json.dumps(CANAL), "", "[]", '{"plugins": 1}', "{"):
        assert multus.parse("10-x.conflist", other) is None


async def test_what_multus_began_is_ended_with_the_same_configuration(memory: Path, tmp_path: Path) -> None:
    node = cast(Node, OneNode(tmp_path, "c1"))
    await networks.import_networks(node, facts(memory), final=True)
    first, second = sorted(read_rows(node.place.state_dir / FILE), key=lambda row: row.place)
    assert (first.key, first.reference, first.main) == (("c1", "net1"), "default/storage", "eth0")
    assert (second.key, second.reference, second.gateways) == (("c1", "data0"), "infra/chain", ("10.7.0.1",))
    assert (first.multus, first.own, first.instead, first.result) == (True, False, False, RESULT)
    assert first.pod is not None
    assert (first.pod.namespace, first.pod.name, first.pod.uid) == ("default", "web", "uid-web")
    assert first.call.args == ";".join("=".join(pair) for pair in ARGS)
    assert first.call.netns == "/var/run/netns/cni-1"
    assert json.loads(stdin(first.call, first.call.plugins[0], first.result)) == {
        **STORAGE, "prevResult": RESULT,
    }  # fmt: skip
    assert json.loads(stdin(second.call, second.call.plugins[0]))["runtimeConfig"] == {
        "mac": "02:00:00:00:00:07"
    }


async def test_an_import_is_repeated_until_multus_has_left(memory: Path, tmp_path: Path) -> None:
    node = cast(Node, OneNode(tmp_path, "c1", "c2"))
    await networks.import_networks(node, facts(memory), final=False)
    (memory / "c2").write_text((memory / "c1").read_text())  # its ADD is under way: nothing is cached yet
    (memory / "c1").unlink()
    await networks.import_networks(node, facts(memory), final=True)
    found = read_rows(node.place.state_dir / FILE)
    assert {row.key for row in found} == {("c2", "net1"), ("c2", "data0")}
    assert all(row.result is None and row.pod is None for row in found)
    assert [p["type"] for row in found for p in row.call.plugins] == ["bridge", "tuning", "macvlan"]


def test_a_pod_whose_default_network_is_not_canals(memory: Path) -> None:
    scratch = json.dumps([delegate("kube-system/flat", STORAGE), delegate("infra/chain", CHAIN)]).encode()
    main = {"storage-c9-eth7": json.dumps(cache(STORAGE, "eth7")).encode()}
    one, two = multus.rows("c9", scratch, main, "towpath", "boot")
    assert (one.call.ifname, one.instead, one.main) == ("eth7", True, "eth7")
    assert (two.call.ifname, two.instead, two.main) == ("net1", False, "eth7")


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[1]", '[{"Name": "a/b"}, {"Name": "a/b"}]', '[{}, {"Bytes": "!"}]']
)
async def test_what_cannot_be_read_is_named_and_forbids_the_rest(
    memory: Path, tmp_path: Path, content: str
) -> None:
    node = cast(Node, OneNode(tmp_path, "c1"))
    (memory / "c3").write_text(content)
    await networks.import_networks(node, facts(memory), final=False)
    with pytest.raises(Stopped) as stopped:
        await networks.import_networks(node, facts(memory), final=True)
    [finding] = stopped.value.findings
    assert finding.code == "TP7122"
    assert str(memory / "c3") in finding.message
    assert {row.key[0] for row in read_rows(node.place.state_dir / FILE)} == {"c1"}


async def test_back_multus_finds_what_it_would_have_written(memory: Path, tmp_path: Path) -> None:
    node, given = cast(Node, OneNode(tmp_path, "c1", "c5")), facts(memory)
    before = multus.rows("c1", (memory / "c1").read_bytes(), contents(memory), "towpath", "boot")
    await networks.import_networks(node, given, final=True)
    node.place.retire(memory)
    (memory / "results").mkdir(parents=True)
    for stale in (memory / "c0", memory / "results/storage-c0-net1"):
        stale.write_text("[]")
    networks.export_networks(node, given)
    assert {file.name for file in memory.iterdir()} == {"c1", "c5", "results"}
    assert [one["ConfList"].get("name") for one in json.loads((memory / "c5").read_text())] == [
        "k8s-pod-network"
    ]
    first = json.loads((memory / "c1").read_text())[0]
    assert base64.b64decode(first["Bytes"]).decode() == json.dumps(CANAL)
    assert set(contents(memory)) == {"storage-c1-net1", "chain-c1-data0"}
    again = multus.rows("c1", (memory / "c1").read_bytes(), contents(memory), "towpath", "boot")
    assert again == before
    assert (memory / "c1").stat().st_mode & 0o777 == 0o600


def contents(memory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (memory / "results").iterdir()}


def in_force_at_every_rename(place: Place, direction: Direction, given: Facts) -> list[str]:
    """Carry out the steps that change it, and note what a runtime would load after each file operation."""
    seen: list[str] = []

    def note(file: Path) -> Path:
        seen.append(place.in_force())
        return file

    with pytest.MonkeyPatch.context() as patched:
        for name in ("replace", "unlink"):
            real = getattr(Path, name)
            patched.setattr(Path, name, lambda self, *a, real=real, **k: (real(self, *a, **k), note(self))[0])
        for step in plan(direction, given):
            if isinstance(step, SwitchConf):
                place.switch(step.on, step.off, step.text)
            elif isinstance(step, RestoreConf):
                place.restore(step.on, step.text)
    return seen


def test_at_no_moment_does_a_pod_start_with_canals_network_alone(memory: Path, tmp_path: Path) -> None:
    place, given = OneNode(tmp_path).place, facts(memory)
    assert given.multus is not None
    (place.cni_conf / "00-multus.conf").write_text(given.multus.text)
    (place.cni_conf / "10-canal.conflist").write_text(given.conf.text)
    seen = in_force_at_every_rename(place, "takeover", given)
    assert set(seen) == {"00-multus.conf", TOWPATH_CONFLIST}
    assert seen[-1] == place.in_force() == TOWPATH_CONFLIST
    assert place.multus_conf() == given.multus
    seen = in_force_at_every_rename(place, "handback", given)
    assert set(seen) == {"00-multus.conf"}
    assert (place.cni_conf / "10-canal.conflist").read_text() == given.conf.text
    assert (place.cni_conf / "00-multus.conf").read_text() == given.multus.text
    assert not (place.cni_conf / TOWPATH_CONFLIST).exists()


def test_what_multus_wrote_as_it_left_does_not_come_before_towpath(memory: Path, tmp_path: Path) -> None:
    node, given = cast(Node, OneNode(tmp_path)), facts(memory)
    folder = node.place.cni_conf
    (folder / "00-multus.conf.towpath-saved").write_text("the one to keep")
    (folder / "00-multus.conf").write_text("nested")
    (folder / TOWPATH_CONFLIST).write_text("{}")
    networks.put_aside(node, given)
    assert node.place.in_force() == TOWPATH_CONFLIST
    assert (folder / "00-multus.conf.towpath-saved").read_text() == "the one to keep"
    assert not memory.exists()
    (folder / "05-other.conf").write_text("{}")
    with pytest.raises(Stopped, match="05-other"):
        networks.put_aside(node, given)


def test_without_multus_nothing_is_done(tmp_path: Path) -> None:
    given = Facts(conf=parse("10-canal.conflist", json.dumps(CANAL)), tools=(), save_folder="")
    node = cast(Node, OneNode(tmp_path))
    asyncio.run(networks.import_networks(node, given, final=True))
    networks.put_aside(node, given)
    networks.export_networks(node, given)
    assert not (node.place.state_dir / FILE).exists()
    assert not any("multus" in step.describe().lower() for step in plan("takeover", given))


async def test_the_agents_journal_is_what_was_imported(memory: Path, tmp_path: Path) -> None:
    node = cast(Node, OneNode(tmp_path, "c1"))
    await networks.import_networks(node, facts(memory), final=True)
    journal = Journal(node.place.state_dir / FILE)
    journal.open()
    assert [row.call.ifname for row in journal.of("c1")] == ["net1", "data0"]
    journal.close()
