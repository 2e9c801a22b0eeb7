"""The agent as a process on a real kernel: what it does at start, under faults, and when it ends."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from agent_node import (
    FLANNEL,
    NET_CONF,
    NODES,
    PODS,
    AgentNode,
    agent_node,
    call_shim,
    node,
    pod,
    pod_namespace,
)
from msgspec.structs import replace

from patience import PATIENT, within
from towpath.desired.names import host_ifname
from towpath.kernel.netns import new_netns, run_in
from towpath.kube.fake import FakeApiServer
from towpath.model.op import describe

pytestmark = pytest.mark.kernel
NET_ADMIN_ALONE = f"{1 << 12:016x}"


@pytest.fixture
def n1(tmp_path: Path) -> Iterator[AgentNode]:
    with agent_node(tmp_path) as made:
        yield made


@pytest.fixture
async def api(n1: AgentNode) -> AsyncIterator[FakeApiServer]:
    server = await n1.start_api()
    server.put(NODES, node(1))
    server.put(NODES, node(2, peer=True))
    yield server
    if n1.process is not None:
        n1.stop(signal.SIGKILL)
    await server.down()


@pytest.fixture
def pod_netns() -> Iterator[Path]:
    with pod_namespace() as path:
        yield path


def notes(api: FakeApiServer) -> dict[str, str]:
    annotations: dict[str, str] = api.get(NODES, "n1")["metadata"]["annotations"]
    return annotations


def report(api: FakeApiServer) -> dict[str, Any]:
    text: dict[str, Any] = json.loads(notes(api).get("towpath.dev/status", "{}"))
    return text


async def test_from_nothing_to_ready(n1: AgentNode, api: FakeApiServer) -> None:
    n1.start()
    await n1.ready()
    state = n1.observe()
    assert {"flannel.1", "flannel-v6.1"} <= state.links.keys()
    assert {str(f.dst) for f in state.fdb} == {"172.30.0.12", "fd00:172:30::12"}
    assert state.nft is not None
    await n1.until(lambda: report(api).get("ready"))
    mac = state.links["flannel.1"].mac
    assert notes(api)[FLANNEL + "backend-data"] == f'{{"VNI":1,"VtepMAC":"{mac}"}}'
    assert notes(api)[FLANNEL + "public-ip"] == "172.30.0.11"
    [condition] = api.get(NODES, "n1")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("NetworkUnavailable", "False")
    code, text = n1.get("/metrics")
    assert code == 200
    assert 'towpath_ready{condition="kernel"} 1.0' in text
    assert 'towpath_dropped_packets_total{reason="spoofed"} ' in text
    assert n1.get("/healthz") == (200, "ok\n")
    assert n1.get("/nothing")[0] == 404


@pytest.mark.parametrize(
    ("change", "devices", "route"),
    [
        ({"EnableIPv6": False}, {"flannel.1"}, "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink"),
        (
            {"EnableIPv4": False},
            {"flannel-v6.1"},
            "fd00:10:42:2::/64 via fd00:10:42:2:: dev flannel-v6.1 onlink",
        ),
        ({"Backend": {"Type": "host-gw"}}, set(), "10.42.2.0/24 via 172.30.0.12 dev und0"),
        (
            {"Backend": {"Type": "vxlan", "DirectRouting": True}},
            {"flannel.1", "flannel-v6.1"},
            "10.42.2.0/24 via 172.30.0.12 dev und0",
        ),
    ],
    ids=["ipv4", "ipv6", "host-gw", "direct-routing"],
)
async def test_families_and_backends(
    n1: AgentNode, api: FakeApiServer, change: dict[str, Any], devices: set[str], route: str
) -> None:
    conf = NET_CONF | change
    peer = node(2, peer=True)
    if conf["Backend"] == {"Type": "host-gw"}:
        peer["metadata"]["annotations"][FLANNEL + "backend-type"] = "host-gw"
    api.put(NODES, peer)
    n1.start(net_conf=conf)
    await n1.ready()
    state = n1.observe()
    assert {name for name in state.links if name.startswith("flannel")} == devices
    assert f"route {route}" in {describe(r) for r in state.routes}
    await n1.until(lambda: report(api).get("ready") and report(api)["findings"] == [])


async def test_one_capability_and_a_small_process(n1: AgentNode, api: FakeApiServer) -> None:
    n1.start()
    await n1.ready()
    status = n1.status()
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == NET_ADMIN_ALONE
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert int(status["VmRSS"].split()[0]) < 60 * 1024
    spent = [n1.cpu_seconds()]
    for _ in range(2):  # whatever else the machine does only adds to it: what counts is the least
        n1.stop()
        n1.start()
        await n1.ready()
        spent.append(n1.cpu_seconds())
    assert min(spent) < 1.0


async def test_deletions_by_others_are_mended_within_a_second(n1: AgentNode, api: FakeApiServer) -> None:
    n1.start(own_table=False)  # as on a kernel where others can delete it
    await n1.ready()
    wanted = n1.observe()

    def whole() -> bool:
        now = n1.observe()
        return (now.routes, now.fdb, now.neighbours, now.nft) == (
            wanted.routes,
            wanted.fdb,
            wanted.neighbours,
            wanted.nft,
        )

    for command in (
        ["ip", "route", "del", "10.42.2.0/24"],
        ["ip", "neigh", "del", "10.42.2.0", "dev", "flannel.1"],
        ["bridge", "fdb", "del", "02:00:00:00:04:02", "dev", "flannel.1"],
        ["ip", "link", "del", "flannel.1"],
        ["ip", "link", "set", "flannel-v6.1", "down"],
        ["nft", "flush", "ruleset"],
        ["nft", "delete", "table", "inet", "towpath"],
    ):

        async def spoil_and_wait(command: list[str] = command) -> None:
            assert n1.run(*command).returncode == 0
            await n1.until(whole)

        await within(1, spoil_and_wait)
    assert n1.observe().links["flannel.1"].mac == wanted.links["flannel.1"].mac
    assert "towpath_repairs_total" in n1.get("/metrics")[1]


async def test_peers_come_and_go(n1: AgentNode, api: FakeApiServer) -> None:
    n1.start()
    await n1.ready()
    api.put(NODES, node(3, peer=True))
    await n1.until(lambda: any(str(f.dst) == "172.30.0.13" for f in n1.observe().fdb))
    api.remove(NODES, "n2")
    await n1.until(lambda: not any(str(f.dst) == "172.30.0.12" for f in n1.observe().fdb))


async def test_sigterm_removes_nothing_and_the_next_one_takes_over(n1: AgentNode, api: FakeApiServer) -> None:
    n1.start()
    await n1.ready()
    before = n1.observe()
    assert n1.stop() == 0
    assert n1.observe() == before
    api.remove(NODES, "n2")
    n1.start()
    await n1.ready()
    after = n1.observe()
    assert after.links == before.links
    assert after.nft is not None
    assert before.nft is not None
    assert after.nft.chains == before.nft.chains
    assert after.nft.sets.keys() == before.nft.sets.keys()
    lost: dict[str, list[str]] = {}
    for name, one in after.nft.sets.items():
        old = before.nft.sets[name]
        assert one == replace(old, elements=one.elements)
        assert one.elements.items() <= old.elements.items()
        if gone := old.elements.keys() - one.elements.keys():
            lost[name] = [str(part) for key in gone for part in key]
    assert lost == {
        "peer4": ["172.30.0.12"],
        "peer6": ["fd00:172:30::12"],
        "vtep4": ["10.42.2.0"],
        "vtep6": ["fd00:10:42:2::"],
        "direct4": ["10.42.2.0/24"],
        "direct6": ["fd00:10:42:2::/64"],
    }
    assert not after.fdb  # what went while nobody looked is gone


async def test_second_agent_on_a_node_refuses(n1: AgentNode, api: FakeApiServer) -> None:
    first = n1.start()
    await n1.ready()
    second = n1.start("--health-address=127.0.0.1:9110")
    assert await asyncio.to_thread(second.wait, PATIENT) == 7
    assert f"another agent (pid {first.pid})" in n1.log.read_text()
    n1.process = first
    assert n1.get("/readyz")[0] == 200


async def test_api_down_at_start_is_not_ready_and_changes_nothing(n1: AgentNode, api: FakeApiServer) -> None:
    await api.down()
    n1.start()
    await n1.until(lambda: n1.get("/readyz")[0] == 503)
    _, text = n1.get("/readyz")
    assert "[-]api: nodes not listed yet: list nodes:" in text
    assert n1.get("/healthz")[0] == 200
    assert "flannel.1" not in n1.observe().links
    await api.up()
    await n1.ready()


async def test_waits_for_its_node_and_then_for_its_pod_cidr(n1: AgentNode, api: FakeApiServer) -> None:
    api.remove(NODES, "n1")
    n1.start()
    await n1.until(lambda: "TP3010 Node/n1" in n1.get("/readyz")[1])
    assert "flannel.1" not in n1.observe().links
    bare = node(1)
    bare["spec"] = {}
    api.put(NODES, bare)
    await n1.until(lambda: any("has no podCIDR" in f for f in report(api).get("findings", ())))
    _, error = await call_shim(n1, "STATUS", "", None)
    assert error["code"] == 50
    assert "has no podCIDR" in error["details"]
    api.put(NODES, node(1))
    await n1.ready()
    assert (await call_shim(n1, "STATUS", "", None))[0] == 0


async def test_garbage_from_other_nodes_is_their_affair(n1: AgentNode, api: FakeApiServer) -> None:
    odd = node(3, peer=True)
    odd["metadata"]["annotations"][FLANNEL + "backend-data"] = '{"VNI":1,"VtepMAC":"no"}'
    api.put(NODES, odd)
    api.put(NODES, node(4, peer=True) | {"spec": {"podCIDRs": [17]}})
    n1.start()
    await n1.ready()
    await n1.until(lambda: any("TP3003 Node/n3" in f for f in report(api).get("findings", ())))
    assert any("TP1040 Node/n4" in f for f in report(api)["findings"])
    assert 'towpath_findings{code="TP1040",' in n1.get("/metrics")[1]
    assert {str(f.dst) for f in n1.observe().fdb} == {"172.30.0.12", "fd00:172:30::12", "fd00:172:30::13"}


async def test_pods_start_from_the_cache_while_the_api_is_down(
    n1: AgentNode, api: FakeApiServer, pod_netns: Path
) -> None:
    n1.start()
    await n1.ready()
    await n1.until(lambda: 'towpath_api_lists_total{kind="pods"} 1.0' in n1.get("/metrics")[1])
    api.put(PODS, pod("known"))
    await n1.until(lambda: 'towpath_api_events_total{kind="pods"} 1.0' in n1.get("/metrics")[1])
    await api.down()
    code, error = await call_shim(n1, "ADD", "stranger", pod_netns)
    assert code == 1
    assert error["code"] == 11
    assert "default/stranger" in error["msg"]
    assert error["details"]
    code, result = await call_shim(n1, "ADD", "known", pod_netns)
    assert code == 0, result
    assert host_ifname("default", "known") in n1.observe().links
    # The kernel is still looked after.
    n1.ip("route del 10.42.2.0/24")
    await n1.until(lambda: any(str(r.dst) == "10.42.2.0/24" for r in n1.observe().routes))
    assert n1.stop() == 0
    assert host_ifname("default", "known") in n1.observe().links
    n1.start()
    code, _ = await call_shim(n1, "DEL", "known", pod_netns)
    assert code == 0
    assert host_ifname("default", "known") not in n1.observe().links


async def test_a_pod_survives_a_restart_and_is_kept_wired(
    n1: AgentNode, api: FakeApiServer, pod_netns: Path
) -> None:
    api.put(PODS, pod("a"))
    n1.start()
    code, result = await call_shim(n1, "ADD", "a", pod_netns)  # waits until the agent is ready for it
    assert code == 0, result
    host = host_ifname("default", "a")
    wired = {r for r in n1.observe().routes if r.dev == host}
    assert wired
    n1.stop(signal.SIGKILL)
    n1.ip(f"link set {host} down")
    n1.ip(f"link set {host} up")
    n1.start()
    await n1.ready()
    assert {r for r in n1.observe().routes if r.dev == host} == wired
    code, _ = await call_shim(n1, "CHECK", "a", pod_netns)
    await n1.until(lambda: report(api)["pods"] == 1)
    n1.ip(f"link del {host}")
    await n1.until(lambda: any("TP3016" in f for f in report(api)["findings"]))
    code, _ = await call_shim(n1, "DEL", "a", None)
    assert code == 0


async def test_verify_answers_a_nonce_with_what_it_found(n1: AgentNode, api: FakeApiServer) -> None:
    n1.start()
    await n1.until(lambda: report(api).get("ready"))
    own = api.get(NODES, "n1")
    own["metadata"]["annotations"] = own["metadata"]["annotations"] | {"towpath.dev/verify": "nonce-1"}
    api.put(NODES, own)
    await n1.until(lambda: report(api)["verified"] == "nonce-1")
    assert report(api)["drift"] == []


async def test_what_the_kernel_refuses_is_told_and_the_rest_is_done(
    n1: AgentNode, api: FakeApiServer
) -> None:
    n1.ip("link add other type vxlan id 1 dstport 8472 dev und0 local 172.30.0.11")
    n1.start()
    await n1.until(lambda: report(api).get("drift"))
    assert not report(api)["ready"]
    assert any(line.startswith("add link flannel.1") for line in report(api)["drift"])
    assert any(line.startswith("TP1020 Node/n1: add link flannel.1") for line in report(api)["findings"])
    code, text = n1.get("/readyz")
    assert code == 503
    assert "[-]kernel: add link flannel.1" in text
    assert FLANNEL + "public-ip" not in notes(api)  # nobody is told of a device that is not there
    assert any(str(r.dst) == "fd00:10:42:2::/64" for r in n1.observe().routes)
    n1.ip("link del other")
    await n1.ready()
    await n1.until(lambda: report(api)["ready"] and not report(api)["drift"])


def _spoil(state: Path, content: bytes | str) -> None:
    """Replace the lease store by garbage, or execute SQL on it."""
    if isinstance(content, str):
        with closing(sqlite3.connect(state / "leases.db")) as db, db:
            db.execute(content)
        return
    for name in ("leases.db-wal", "leases.db-shm"):
        (state / name).unlink(missing_ok=True)
    (state / "leases.db").write_bytes(content)


async def test_an_unusable_lease_store_stops_nothing_that_runs(
    n1: AgentNode, api: FakeApiServer, pod_netns: Path
) -> None:
    """Without its leases the agent cannot tell pods from leftovers: it must not touch what is there."""
    api.put(PODS, pod("a"))
    n1.start()
    code, _ = await call_shim(n1, "ADD", "a", pod_netns)
    assert code == 0
    before = n1.observe()
    n1.stop()
    _spoil(n1.folder / "state", "UPDATE schema SET version = 99")
    n1.start()
    await n1.until(lambda: "[-]cni" in n1.get("/readyz")[1] and "[+]api" in n1.get("/readyz")[1])
    code, error = await call_shim(n1, "STATUS", "", None)
    assert error["code"] == 50
    await n1.until(lambda: any("TP4004" in f for f in report(api)["findings"]))
    n1.ip("route del 10.42.2.0/24")
    await asyncio.sleep(0.5)
    after = n1.observe()
    assert after.nft == before.nft
    assert {r for r in before.routes if r.dev.startswith("cali")} <= after.routes
    n1.stop()
    _spoil(n1.folder / "state", "UPDATE schema SET version = 1")
    n1.start()
    await n1.ready()
    assert n1.observe().routes == before.routes
    assert n1.observe().nft == before.nft


async def test_a_damaged_lease_store_is_put_aside_and_made_anew(
    n1: AgentNode, api: FakeApiServer, pod_netns: Path
) -> None:
    """From the kernel and the API: pods keep all they have, and their DEL finds them."""
    api.put(PODS, pod("a"))
    api.put(PODS, pod("b"))
    n1.start()
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    shaped = {
        "ingressRate": 8_000_000,
        "ingressBurst": 800_000,
        "egressRate": 8_000_000,
        "egressBurst": 800_000,
    }
    asked = {"portMappings": ports, "bandwidth": shaped}
    able = {"portMappings": True, "bandwidth": True}
    code, result = await call_shim(n1, "ADD", "a", pod_netns, capabilities=able, runtimeConfig=asked)
    assert code == 0, result
    before, address = n1.observe(), result["ips"][0]["address"]
    n1.stop(signal.SIGKILL)
    await api.down()
    _spoil(n1.folder / "state", b"no database at all" * 1000)
    n1.start()
    await asyncio.sleep(1)
    assert n1.observe() == before, "nobody knows yet whose these pods are"
    await api.up()
    await n1.ready()
    assert n1.observe() == before
    await n1.until(lambda: report(api).get("pods") == 1)
    assert any("TP4006" in f for f in report(api)["findings"])
    assert (n1.folder / "state/leases.db.damaged-1").read_bytes().startswith(b"no database")
    with pod_namespace() as other:
        code, result = await call_shim(n1, "ADD", "b", other)
        assert code == 0, result
        assert address not in {ip["address"] for ip in result["ips"]}
        assert (await call_shim(n1, "DEL", "a", pod_netns))[0] == 0
        left = n1.observe()
        assert {name for name in left.links if name.startswith(("cali", "tpb"))} == {
            host_ifname("default", "b")
        }
    assert left.nft is not None
    assert not left.nft.sets["hostport4"].elements
    with closing(sqlite3.connect(n1.folder / "state/leases.db")) as db:
        assert db.execute("SELECT count(*) FROM attachments").fetchone() == (1,)


async def test_runs_as_another_user_started_from_root() -> None:
    if Path("/proc/self/uid_map").read_text().split()[2] == "1":
        pytest.skip("only one uid is mapped here: there is no other user to become")
    with tempfile.TemporaryDirectory() as name, agent_node(Path(name)) as n1:
        Path(name).chmod(0o711)  # pytest's own folders are closed to everybody else
        api = await n1.start_api(mutual_tls=True)  # with a kubeconfig that only root can read
        api.put(NODES, node(1))
        n1.start(run_as_uid=65532, run_as_gid=65532, cni_socket=f"{name}/run/cni.sock")
        await n1.ready()
        status = n1.status()
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
        assert status["Groups"].strip() == ""
        assert status["CapEff"] == status["CapPrm"] == NET_ADMIN_ALONE
        assert "flannel.1" in n1.observe().links
        socket = Path(name, "run/cni.sock")
        assert socket.stat().st_uid == 65532
        assert socket.stat().st_mode & 0o777 == 0o600
        assert (socket.parent.stat().st_uid, socket.parent.stat().st_gid) == (0, 65532)
        assert n1.stop() == 0
        await api.down()


async def test_in_a_user_namespace_of_an_ordinary_user(tmp_path: Path) -> None:
    """Root inside, nobody outside: the whole way to ready, and the capability, as the lab has it."""
    script = tmp_path / "inside.py"
    script.write_text(
        "import asyncio, pathlib, sys\n"
        f"sys.path[:0] = {[str(Path(__file__).parents[n]) for n in (0, 1)]!r}\n"
        "from agent_node import *\n"
        "async def main():\n"
        f"    with agent_node(pathlib.Path({str(tmp_path)!r})) as n:\n"
        "        api = await n.start_api()\n"
        "        api.put(NODES, node(1))\n"
        "        n.start()\n"
        "        await n.ready()\n"
        "        print(n.status()['CapEff'], n.status()['Uid'].split()[0])\n"
        "        assert n.stop() == 0\n"
        "        await api.down()\n"
        "asyncio.run(main())\n"
    )
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, str(script)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [NET_ADMIN_ALONE, "0"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"nodename": "n1"}, "nodename (from"),
        ({"resync_seconds": "soon"}, "'soon' is not a number"),
        ({"health_address": "0.0.0.0:9109"}, "can be reached from outside"),
        ({"net_conf": {"Network": "10.42.0.0/16", "Backend": {"Type": "udp"}}}, "Backend.Type is 'udp'"),
        ({"kubeconfig": "/nowhere"}, "/nowhere"),
    ],
)
async def test_bad_settings_end_it_with_a_sentence(
    n1: AgentNode, setting: dict[str, Any], words: str
) -> None:
    n1.start(**setting)
    assert n1.process is not None
    code = await asyncio.to_thread(n1.process.wait, PATIENT)
    assert code == (7 if "kubeconfig" in setting else 2)
    assert words in n1.log.read_text()
    assert "Traceback" not in n1.log.read_text()
    n1.process = None


def test_namespaces_are_what_the_harness_says() -> None:
    fd = new_netns()
    assert (
        run_in(fd, lambda: Path("/proc/thread-self/ns/net").stat().st_ino)
        != Path("/proc/self/ns/net").stat().st_ino
    )
    import os

    os.close(fd)
