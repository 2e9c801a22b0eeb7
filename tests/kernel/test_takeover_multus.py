"""Multus stands between the runtime and Canal: its pods' further networks go over, and back."""

import base64
import json
from pathlib import Path as File
from typing import Any

import pytest
from canal_world import CanalNode, agent_running, canal_world, settled
from test_takeover import handed_back, in_felix, taken_over

from towpath.multinet.journal import FILE, read_rows

pytestmark = pytest.mark.kernel

ODD = {"cniVersion": "1.0.0", "name": "odd", "type": "odd", "key": "as it was at ADD"}
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.5.0.5/24"}]}


def remember(one: CanalNode, folder: File, pod: str) -> None:
    """What Multus leaves of a pod with one further network."""
    call = one.pods[pod].call
    text = base64.b64encode(json.dumps(ODD).encode()).decode()
    canal = base64.b64encode(one.conflist.encode()).decode()
    delegates = [
        {"Conf": {}, "ConfList": json.loads(one.conflist), "Name": "", "Bytes": canal},
        {"Conf": ODD, "ConfList": {}, "Name": "default/odd", "Bytes": text},
    ]
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / call.container_id).write_text(json.dumps(delegates))
    cached = {
        "kind": "cniCacheV1",
        "containerId": call.container_id,
        "config": text,
        "ifName": "net1",
        "networkName": "odd",
        "netns": call.netns,
        "cniArgs": [list(pair) for pair in call.args],
        "result": RESULT,
    }
    (folder / "results" / f"odd-{call.container_id}-net1").write_text(json.dumps(cached))


def configured(one: CanalNode) -> list[str]:
    return sorted(path.name for path in one.conf.iterdir() if not path.name.startswith("."))


async def test_over_and_back_with_multus(tmp_path: File) -> None:
    async with canal_world(tmp_path) as world:
        n1, memory = world.n1, tmp_path / "multus"
        for pod in ("goes", "stays"):
            await n1.add(world.api, pod)
            remember(n1, memory, pod)
        await settled(lambda: in_felix(n1, "goes", "stays"), n1)
        own: dict[str, Any] = {"name": "multus-cni-network", "type": "multus", "cniDir": str(memory)}
        (n1.conf / "00-multus.conf").write_text(json.dumps(own))
        plugin = n1.bin / "odd"
        plugin.write_text('#!/bin/sh\ncat >> $0.log; echo " $CNI_COMMAND $CNI_IFNAME" >> $0.log\n')
        plugin.chmod(0o755)
        async with agent_running(n1):
            status, _, said = await taken_over(world)
            assert status == 0, said
            assert configured(n1) == [
                "00-multus.conf.towpath-saved", "10-canal.conflist.towpath-saved", "10-towpath.conflist",
            ]  # fmt: skip
            assert not memory.exists()
            assert {row.reference for row in read_rows(n1.state / FILE)} == {"default/odd"}
            await n1.remove(world.api, "goes")
            told, called = (n1.bin / "odd.log").read_text().strip().split(" DEL ")
            assert called == "net1"
            assert json.loads(told) == {**ODD, "prevResult": RESULT}
            status, _, said = await handed_back(world)
            assert status == 0, said
        assert configured(n1)[:2] == ["00-multus.conf", "10-canal.conflist"]
        assert (n1.conf / "00-multus.conf").read_text() == json.dumps(own)
        container = n1.pods["stays"].call.container_id
        assert sorted(path.name for path in memory.iterdir()) == sorted([container, "results"])
        delegates = json.loads((memory / container).read_text())
        assert [one["Name"] for one in delegates] == ["", "default/odd"]
        [result] = (memory / "results").iterdir()
        assert json.loads(result.read_text())["result"] == RESULT
        # From here on Multus would end it, of which only its rule is known here; Canal ends its own part.
        (n1.conf / "00-multus.conf").unlink()
        await n1.remove(world.api, "stays")
