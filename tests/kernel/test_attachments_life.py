"""Attachments over time: restarts, reboots, garbage, a store that fails, a kernel that refuses."""

import asyncio
import ctypes
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attach_node import AttachNode, run

from patience import ATTEMPTS, PATIENT, true
from towpath.api.core import Pod, PodStatus
from towpath.api.meta import ObjectMeta
from towpath.cni.errors import CniError, ErrorCode
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.port import KernelRefused
from towpath.model.op import Op

BUSY = {
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 10**7, "egressRate": 10**7},
    }
}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[AttachNode]:
    node = AttachNode(tmp_path)
    yield node
    node.close()


async def refused(call: Any) -> tuple[ErrorCode, str]:
    with pytest.raises(CniError) as caught:
        await call
    return caught.value.code, str(caught.value)


async def status(node: AttachNode, **config: Any) -> str:
    """What STATUS complains about, or nothing."""
    try:
        await node.handler.status(node.request("STATUS", "", config=config))
    except CniError as error:
        assert error.code == ErrorCode.UNAVAILABLE
        return str(error)
    return ""


async def collect_garbage(node: AttachNode, *valid: str, **config: Any) -> None:
    listed = [{"containerID": name, "ifname": "eth0"} for name in valid]
    more = {"cni.dev/valid-attachments": listed, **config}
    await node.handler.gc(node.request("GC", "", config=more))


async def test_an_agent_takes_over_from_another(fresh: AttachNode) -> None:
    async with fresh.agent() as first:
        await fresh.add("c1", config=BUSY)
        before = first.current()
    async with fresh.agent() as second:
        assert second.current() == before
        await fresh.check("c1")
        await fresh.add("c2")
        await fresh.delete("c1")
        await fresh.delete("c2")
        assert fresh.leftovers() == []


async def test_what_is_being_detached_is_not_adopted_again(fresh: AttachNode) -> None:
    """DELs reach an agent as it starts, and reading the store is one of the things it does then."""
    async with fresh.agent():
        for name in ("c1", "c2"):
            await fresh.add(name)
    async with fresh.agent() as second:
        adoptions = 0
        for attempt in range(ATTEMPTS):
            if attempt:
                await fresh.add("c1")
            leaving = asyncio.create_task(fresh.delete("c1"))
            adoptions = 0
            while fresh.store.get("c1", "eth0") is not None:
                second.adopt()
                adoptions += 1
                await asyncio.sleep(0)
            await leaving
            if adoptions > 2:
                break
        assert adoptions > 2, "it is read in the midst of the DEL"
        assert [att.container_id for att in second.current()] == ["c2"]
        assert [att.container_id for att in fresh.store.attachments()] == ["c2"]


async def test_status_is_about_the_node_and_the_configuration(fresh: AttachNode) -> None:
    async with fresh.agent():
        assert await status(fresh) == ""
        fresh.settings.not_ready = "the API server has not been reached"
        assert "has not been reached" in await status(fresh)
        fresh.settings.not_ready = ""
        fresh.settings.pod_cidrs = ()
        assert "no podCIDR yet" in await status(fresh) and "TP4003" in await status(fresh)
        assert await status(fresh, ipam={"ranges": [[{"subnet": "10.0.0.0/24"}]]}) == ""
        code, text = await refused(fresh.add("c1"))
        assert code == ErrorCode.TRY_LATER and "no podCIDR yet" in text


async def test_gc_undoes_what_the_runtime_does_not_list(fresh: AttachNode) -> None:
    async with fresh.agent():
        for name in ("c1", "c2", "c3"):
            await fresh.add(name, config=BUSY if name == "c2" else None)
        await fresh.add("foreign", config={"name": "other"})
        code, text = await refused(fresh.handler.gc(fresh.request("GC", "")))
        assert code == ErrorCode.BAD_CONFIG and "would detach every pod" in text
        await collect_garbage(fresh, "c1", disableGC=True)
        assert len(fresh.handler.current()) == 4
        await collect_garbage(fresh, "c1", "c3")
        assert len(fresh.handler.current()) == 4  # one proof alone: the API server has the pod
        fresh.pods.known["default", "c2"] = None
        await collect_garbage(fresh, "c1", "c2", "c3")
        await fresh.handler.garbage.collect()
        assert len(fresh.handler.current()) == 4  # the runtime lists it by now: its link is there
        await collect_garbage(fresh, "c1", "c3")
        assert {a.container_id for a in fresh.handler.current()} == {"c1", "c3", "foreign"}
        for name in ("c1", "c3", "foreign"):
            await fresh.check(name)
            fresh.pods.known["default", name] = None
        await collect_garbage(fresh)
        await collect_garbage(fresh, name="other")
        assert fresh.leftovers() == []


async def test_gc_leaves_an_add_alone_that_is_under_way(fresh: AttachNode) -> None:
    async with fresh.agent():
        adding = asyncio.create_task(fresh.add("c1"))
        async with asyncio.timeout(PATIENT):
            while fresh.store.get("c1", "eth0") is None:  # noqa: ASYNC110 - the store has no event for it
                await asyncio.sleep(0)
        fresh.pods.known["default", "c1"] = None
        await collect_garbage(fresh)
        await adding
        await fresh.check("c1")


async def test_leases_of_a_former_boot(fresh: AttachNode) -> None:
    async with fresh.agent():
        for name in ("kept", "gone", "finished", "replaced", "unknown"):
            await fresh.add(name)
        await fresh.add("podman", pod=None)
        await fresh.add("same-id", pod=None)
    fresh.close()  # the reboot: links and namespaces are gone
    fresh.namespaces.clear()
    fresh.boot_id = "boot-2"
    fresh.pods.known |= {
        ("default", "gone"): None,
        ("default", "finished"): Pod(status=PodStatus(phase="Succeeded")),
    }
    async with fresh.agent() as agent:
        assert agent.current() == ()
        assert len(fresh.store.leased()) == 14  # nobody has proved yet that they are over
        result = await fresh.add("replaced-2", pod="replaced")
        assert str(result.ips[0].address.ip) == "10.42.1.9"
        await fresh.add("same-id", pod=None)  # podman keeps the ID of a container it starts again
        await agent.garbage.collect()
        left = {a.container_id for a in fresh.store.attachments()}
        assert left == {"kept", "unknown", "replaced-2", "same-id"}
        fresh.pods.down = "no answer"
        await agent.garbage.collect()
        assert {a.container_id for a in fresh.store.attachments()} == left
        for name in ("kept", "unknown", "replaced", "same-id"):
            await fresh.delete(name, with_netns=False)
        await fresh.check("replaced-2", pod="replaced")
        await fresh.delete("replaced-2", pod="replaced")
        assert fresh.leftovers() == []


async def test_a_lease_is_freed_on_two_proofs_only(fresh: AttachNode) -> None:
    async with fresh.agent() as agent:
        for name in ("running", "unplugged", "deleted"):
            await fresh.add(name)
        for name in ("unplugged", "deleted"):
            run(f"ip link delete {fresh.host(name)}")
        fresh.pods.known["default", "deleted"] = None
        fresh.pods.known["default", "running"] = None  # deleted in the API, but its link is there
        await agent.garbage.collect()
        assert {a.container_id for a in fresh.store.attachments()} == {"running", "unplugged"}
        successor = Pod(metadata=ObjectMeta(uid="another"))
        fresh.pods.known["default", "unplugged"] = successor
        await agent.garbage.collect()
        assert {a.container_id for a in fresh.store.attachments()} == {
            "running",
            "unplugged",
        }  # no UID to compare


async def test_garbage_is_watched_for_a_while_before_it_is_freed(fresh: AttachNode) -> None:
    fresh.settings.lease_grace = 60.0
    async with fresh.agent() as agent:
        await fresh.add("c1")
        run(f"ip link delete {fresh.host('c1')}")
        fresh.pods.known["default", "c1"] = None
        assert await agent.garbage.collect() == 0
        (candidate,) = agent.garbage.candidates
        assert (candidate.over, candidate.since) == ("pod default/c1 is gone", fresh.clock.now)
        fresh.clock.now += 59
        fresh.pods.known["default", "c1"] = Pod()  # one witness takes it back
        assert await agent.garbage.collect() == 0
        assert agent.garbage.candidates == ()
        fresh.pods.known["default", "c1"] = None
        await agent.garbage.collect()
        fresh.clock.now += 59
        assert await agent.garbage.collect() == 0
        fresh.clock.now += 1
        assert await agent.garbage.collect() == 1
        assert fresh.store.leased() == {}
        assert (agent.garbage.collected, agent.garbage.candidates) == (1, ())


class Refusing:
    """The node's kernel, which refuses the operation of a number."""

    def __init__(self, kernel: LinuxKernel, number: int) -> None:
        self.kernel, self.left, self.refused = kernel, number, ""

    def observe(self, *args: Any) -> Any:
        return self.kernel.observe(*args)

    def apply(self, ops: Sequence[Op], pod_netns: int | None = None) -> None:
        for op in ops:
            self.left -= 1
            if self.left == 0:
                self.refused = op.describe()
                raise KernelRefused(self.refused, 12, "Cannot allocate memory")
            self.kernel.apply([op], pod_netns)


async def test_whatever_the_kernel_refuses_is_undone(
    fresh: AttachNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    async with fresh.agent() as agent:
        for number in range(1, 60):
            refusing = Refusing(fresh.kernel, number)
            monkeypatch.setattr(agent._wiring, "_host", refusing)
            try:
                await fresh.add(f"c{number}", config=BUSY)
            except CniError as error:
                assert error.code == ErrorCode.INTERNAL and refusing.refused in str(error)
                assert fresh.leftovers() == [], refusing.refused
                tried.append(refusing.refused)
            else:
                break
        monkeypatch.undo()
        await fresh.check(f"c{number}")
        await fresh.delete(f"c{number}")
        assert fresh.leftovers() == []
    assert len(tried) >= 15 and any("nft" in t for t in tried)


async def test_an_undo_that_fails_is_repeated_by_del(
    fresh: AttachNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fresh.agent() as agent:
        await fresh.add("c1", config=BUSY)
        monkeypatch.setattr(agent._wiring, "_host", Refusing(fresh.kernel, 1))
        code, text = await refused(fresh.delete("c1"))
        assert code == ErrorCode.INTERNAL and "cannot undo the wiring" in text
        assert fresh.store.get("c1", "eth0") is not None
        await fresh.delete("c1")
        assert fresh.leftovers() == []


async def test_a_damaged_store_is_told_and_mended(fresh: AttachNode) -> None:
    path = fresh.folder / "leases.db"
    path.write_bytes(b"garbage " * 1000)
    async with fresh.agent() as agent:
        code, text = await refused(fresh.add("c1"))
        assert code == ErrorCode.IO_FAILURE and "not a database" in text and "put aside and made anew" in text
        assert "not a database" in await status(fresh)
        assert [f.code for f in agent.findings()] == ["TP4004"]
        assert fresh.leftovers() == []
        path.unlink()
        assert await status(fresh) != ""  # answered from memory; this one asks the store again
        await true(lambda: not fresh.store.problem)
        assert await status(fresh) == "" and agent.findings() == ()
        await fresh.add("c1")


async def test_a_lost_store_does_not_cost_an_address(fresh: AttachNode) -> None:
    async with fresh.agent():
        await fresh.add("c1")
    for path in fresh.folder.glob("leases.db*"):
        path.unlink()
    async with fresh.agent() as agent:
        result = await fresh.add("c2")
        assert str(result.ips[0].address.ip) == "10.42.1.3"
        assert [f.code for f in agent.findings()] == ["TP4002", "TP4002"]
        await fresh.delete("c1")
        await fresh.delete("c2")


async def test_a_row_that_cannot_be_read_is_removed_by_del(fresh: AttachNode) -> None:
    async with fresh.agent():
        await fresh.add("c1")
    with sqlite3.connect(fresh.folder / "leases.db") as db:
        db.execute("UPDATE attachments SET body = 'x'")
    db.close()
    async with fresh.agent() as agent:
        assert [f.code for f in agent.findings()] == ["TP4005"]
        await fresh.delete("c1")
        assert [x for x in fresh.leftovers() if x.startswith(("lease", "cali", "c1"))] == []


async def test_a_full_disk_leases_nothing(fresh: AttachNode) -> None:
    small = fresh.folder / "small"
    small.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", str(small).encode(), b"tmpfs", 0, b"size=256k") == 0
    fresh.folder = small
    try:
        async with fresh.agent():
            await fresh.add("before")
            ballast = small / "ballast"
            with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as out:
                while True:
                    out.write(bytes(4096))
            for n in range(20):  # until the log's own room is used up
                try:
                    await fresh.add(f"c{n}")
                except CniError as error:
                    assert error.code == ErrorCode.IO_FAILURE and "full" in str(error)
                    break
            else:
                raise AssertionError("the disk is not full")
            assert fresh.store.get(f"c{n}", "eth0") is None and "full" in await status(fresh)
            assert list(fresh.inside(f"c{n}").links) == ["lo"]
            code, _ = await refused(fresh.delete("before"))
            assert code == ErrorCode.IO_FAILURE
            ballast.unlink()
            await fresh.delete("before")
            for done in range(n):
                await fresh.delete(f"c{done}")
            assert fresh.leftovers() == []
    finally:
        libc.umount2(str(small).encode(), 2)
