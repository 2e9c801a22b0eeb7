"""``towpath ipam`` against a real agent with leaks and damage of every kind: it finds exactly them."""

import asyncio
import contextlib
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from agent_node import NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace

from attachments import attachment
from towpath.api.report import STATUS
from towpath.desired.names import host_ifname
from towpath.ipam import codec
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import IP_RESERVATIONS
from towpath.model.attachment import PodRef

FORMER = "a former boot"
LIVING = ("a", "b", "cut", "lingers", "leaked1", "leaked2")


def with_address(name: str, address: str, created: str, on: str = "n1") -> dict[str, Any]:
    made = pod(name)
    made["metadata"]["creationTimestamp"] = created
    made["spec"]["nodeName"] = on
    made["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    return made


def towpath_ipam(n1: AgentNode, *arguments: str) -> tuple[int, Any, str]:
    command = [sys.executable, "-m", "towpath", "ipam", *arguments]
    done = n1.run(*command, "--kubeconfig", str(n1.folder / "kubeconfig"), "-o", "json")
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


async def started(n1: AgentNode, api: FakeApiServer, **settings: Any) -> None:
    """An agent that is ready and has reported: the command asks no other."""
    n1.start(**settings)
    await n1.ready()
    nodes = api.objects["core/v1/nodes"]
    await n1.until(lambda: STATUS in (nodes["", "n1"]["metadata"].get("annotations") or {}), 60)


def inject(db: sqlite3.Connection, address: dict[str, str]) -> None:
    """Into the file of a node that is down: what reboots, editors and bad disks leave."""

    def lease(text: str, container: str) -> None:
        db.execute(
            "INSERT INTO leases (address, container_id, ifname) VALUES (?, ?, 'eth0')", (text, container)
        )

    def row(container: str, body: bytes) -> None:
        sql = "INSERT INTO attachments (container_id, ifname, body) VALUES (?, 'eth0', ?)"
        db.execute(sql, (container, body))

    for number in range(6):  # a reboot: pods that are gone
        name, text = f"gone{number}", f"10.42.1.{100 + number}"
        ref = PodRef(namespace="default", name=name, uid=f"uid-{name}")
        row(name, codec.encode(attachment(name, text, container_id=name, pod=ref, boot_id=FORMER)))
        lease(text, name)
    for name, text in (("kept", "10.42.1.110"), ("astray", "10.42.7.9")):  # and that will come again
        ref = PodRef(namespace="default", name=name, uid=f"uid-{name}")
        row(name, codec.encode(attachment(name, text, container_id=name, pod=ref, boot_id=FORMER)))
        lease(text, name)
    for number in range(3):
        lease(f"10.42.1.{120 + number}", f"orphan{number}")
    for number in range(2):
        row(f"damaged{number}", b'{"container_id": 1')
        lease(f"10.42.1.{130 + number}", f"damaged{number}")
    for name in ("a", "b"):
        db.execute("DELETE FROM leases WHERE address = ?", (address[name],))


EXPECTED = {
    *{("TP4010", f"10.42.1.{100 + n}") for n in range(6)},
    *{("TP4013", f"10.42.1.{120 + n}") for n in range(3)},
    *{("TP4005", f"10.42.1.{130 + n}") for n in range(2)},
    ("TP4014", "a"),
    ("TP4014", "b"),
    ("TP4010", "leaked1"),
    ("TP4010", "leaked2"),
    ("TP4011", "cut"),
    ("TP4012", "lingers"),
    ("TP4002", "10.42.1.200"),
    ("TP4017", "10.42.1.222"),
    ("TP4015", "b"),
    ("TP4015", "lingers"),
    ("TP4016", "10.42.7.9"),
}
MENDED = {"TP4010", "TP4013", "TP4005", "TP4014"}


async def damaged_node(n1: AgentNode, api: FakeApiServer, spaces: contextlib.ExitStack) -> dict[str, str]:
    """Real pods, a night's worth of accidents, an agent that comes back. Pods' addresses by name."""
    quiet: dict[str, Any] = {
        "resync_seconds": 3600,
        "lease_grace_seconds": 0,
    }  # nothing is collected by itself
    api.put(NODES, node(1))
    for name in (*LIVING, "kept", "astray"):
        api.put(PODS, pod(name))
    await started(n1, api, **quiet)
    address = {}
    for name in LIVING:
        code, result = await call_shim(n1, "ADD", name, spaces.enter_context(pod_namespace()))
        assert code == 0, result
        address[name] = result["ips"][0]["address"].partition("/")[0]
    n1.stop()
    with contextlib.closing(sqlite3.connect(n1.folder / "state" / "leases.db")) as db, db:
        inject(db, address)
    for name in ("cut", "leaked1", "leaked2"):
        n1.ip(f"link delete {host_ifname('default', name)}")
    for name in ("lingers", "leaked1", "leaked2"):
        api.remove(PODS, name, "default")
    n1.ip("link add cali00000000000 type veth peer name stranger")
    n1.ip("link set cali00000000000 up")
    n1.ip("route add 10.42.1.200/32 dev cali00000000000")
    n1.ip(f"route add {address['lingers']}/32 dev cali00000000000 metric 50")  # the kernel has two owners
    api.put(PODS, with_address("stranger", "10.42.1.222", "2026-01-02T00:00:00Z"))
    api.put(PODS, with_address("b", address["b"], "2026-01-02T00:00:00Z"))
    api.put(PODS, with_address("twin", address["b"], "2026-01-01T00:00:00Z", on="n2"))
    await started(n1, api, **quiet)
    return address


async def test_check_finds_exactly_what_is_wrong_and_mends_it(tmp_path: Path) -> None:
    with agent_node(tmp_path) as n1, contextlib.ExitStack() as spaces:
        api = await n1.start_api()
        address = await damaged_node(n1, api, spaces)
        names = {text: name for name, text in address.items()}

        def told(rows: Any, key: str = "problems") -> set[tuple[str, str]]:
            (row,) = rows
            found = [(p["code"], text) for p in row[key] for text in p["addresses"] if ":" not in text]
            assert len(found) == len(set(found))
            return {(code, names.get(text, text)) for code, text in found}

        async def ipam(*arguments: str) -> tuple[int, Any, str]:
            return await asyncio.to_thread(towpath_ipam, n1, *arguments)

        code, rows, errors = await ipam("check")
        assert code == 3, errors
        assert told(rows) == EXPECTED
        code, rows, _ = await ipam("check")  # nothing has been changed by looking
        assert told(rows) == EXPECTED

        code, rows, _ = await ipam("show", address["a"], "10.42.1.100", "10.42.1.3", "10.42.1.250")
        assert code == 3
        assert {row["address"]: row["state"] for row in rows}["10.42.1.100"] == (
            "pod default/gone0 is gone; it is of a former boot"
        )
        code, rows, _ = await ipam("release", address["b"], "10.42.1.100")
        assert code == 3
        assert [row["freed"] for row in rows] == [False, True]

        code, rows, _ = await ipam("check", "--fix")
        assert code == 3
        assert told(rows) == EXPECTED - {("TP4010", "10.42.1.100")}
        assert told(rows, "left") == {one for one in EXPECTED if one[0] not in MENDED}
        assert rows[0]["refused"] == []
        with contextlib.closing(sqlite3.connect(n1.folder / "state" / "leases.db")) as db:
            leased = {text for (text,) in db.execute("SELECT address FROM leases") if ":" not in text}
        kept = {address[name] for name in ("a", "b", "cut", "lingers")} | {"10.42.1.110", "10.42.7.9"}
        assert leased == kept
        for name in ("a", "b"):
            assert await call_shim(n1, "DEL", name, None) == (0, None)
        n1.stop()
        await api.down()


async def test_what_is_wired_is_not_freed_by_hand(tmp_path: Path) -> None:
    with agent_node(tmp_path) as n1, pod_namespace() as netns:
        api = await n1.start_api()
        api.put(NODES, node(1))
        api.put(PODS, pod("a"))
        await started(n1, api)
        _, result = await call_shim(n1, "ADD", "a", netns)
        text = result["ips"][0]["address"].partition("/")[0]

        async def release(*options: str) -> tuple[int, Any, str]:
            return await asyncio.to_thread(towpath_ipam, n1, "release", text, *options)

        code, rows, _ = await release("--force")
        assert code == 3 and "delete the pod instead" in rows[0]["message"]
        n1.ip(f"link delete {host_ifname('default', 'a')}")
        code, rows, _ = await release()
        assert code == 3 and "but the API server has the pod" in rows[0]["message"]
        code, rows, _ = await release("--force")
        assert code == 0 and rows[0]["freed"]
        code, rows, _ = await release()
        assert code == 3 and rows[0]["message"] == "is not leased"
        n1.stop()
        await api.down()


async def test_reserved_addresses_go_to_those_who_ask_for_them(tmp_path: Path) -> None:
    """The command writes, the agent follows."""
    with agent_node(tmp_path) as n1, pod_namespace() as netns, pod_namespace() as other:
        api = await n1.start_api()
        api.put(NODES, node(1))
        for name in ("a", "b"):
            api.put(PODS, pod(name))

        async def reserve(*arguments: str) -> tuple[int, Any, str]:
            return await asyncio.to_thread(towpath_ipam, n1, "reserve", *arguments)

        api.served[IP_RESERVATIONS.group, IP_RESERVATIONS.version] = [IP_RESERVATIONS.plural]
        code, rows, errors = await reserve("10.42.1.0/29", "--name", "printers")
        assert (code, rows) == (0, [{"name": "printers", "reservedCIDRs": ["10.42.1.0/29"]}]), errors
        await started(n1, api)
        _, result = await call_shim(n1, "ADD", "a", netns)
        assert result["ips"][0]["address"] == "10.42.1.8/32"
        asked = {"args": {"cni": {"ips": ["10.42.1.5"]}}}
        _, result = await call_shim(n1, "ADD", "b", other, **asked)
        assert result["ips"][0]["address"] == "10.42.1.5/32"
        code, rows, _ = await asyncio.to_thread(towpath_ipam, n1, "show")
        # Of the eight, the network's address and the gateway are nobody's, and one is used.
        assert [(r["used"], r["reserved"], r["free"]) for r in rows if r["family"] == "IPv4"] == [(2, 5, 246)]
        code, rows, _ = await reserve("--name", "printers", "--remove")
        assert (code, rows) == (0, [])
        n1.stop()
        await api.down()
