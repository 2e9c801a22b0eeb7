"""The agent frees leases whose DEL never came, when node and API agree that nobody needs them."""

import sqlite3
from pathlib import Path

from agent_node import NODES, PODS, agent_node, node, pod

from attachments import attachment
from towpath.ipam.store import LeaseStore
from towpath.model.attachment import PodRef


async def test_after_a_reboot_the_leases_of_pods_that_are_gone(tmp_path: Path) -> None:
    with agent_node(tmp_path) as n1:
        state = tmp_path / "state"
        state.mkdir()
        store = LeaseStore(state / "leases.db", boot_id="a former boot", clock=lambda: 1.0)
        store.open()
        for name, address in (("gone", "10.42.1.2"), ("kept", "10.42.1.3")):
            ref = PodRef(namespace="default", name=name, uid=f"uid-{name}")
            att = attachment(name, address, container_id=name, pod=ref, boot_id="a former boot")
            await store.add(att, [])
        store.close()
        api = await n1.start_api()
        api.put(NODES, node(1))
        api.put(PODS, pod("kept"))
        n1.start(resync_seconds=1, lease_grace_seconds=0.1)
        await n1.ready()

        def leased() -> set[str]:
            with sqlite3.connect(f"file:{state}/leases.db?mode=ro", uri=True) as db:
                rows = {row[0] for row in db.execute("SELECT container_id FROM leases")}
            db.close()
            return rows

        await n1.until(lambda: leased() == {"kept"})
        n1.stop()
        await api.down()
