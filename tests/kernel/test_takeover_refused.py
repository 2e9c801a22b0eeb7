"""What a takeover refuses: by code, before anything is changed, with what to do."""

import json
from collections.abc import AsyncIterator
from pathlib import Path as File

import pytest
from canal_probes import probes
from canal_world import PODS, CanalNode, World, agent_running, canal_world, dev, finished, settled
from test_takeover import handed_back, in_felix, judge, paths, populated, taken_over

from patience import ATTEMPTS
from towpath.install.hold import held
from towpath.lab.canal import programs

pytestmark = pytest.mark.kernel


@pytest.fixture
async def world(tmp_path: File) -> AsyncIterator[World]:
    async with canal_world(tmp_path) as made:
        await populated(made)
        yield made


async def refused(one: CanalNode, code: str, *options: str) -> str:
    """The takeover must end with this code, say what to do, and leave everything as it was."""
    before = (one.saved(), one.ip("-d link"), sorted(path.name for path in one.conf.iterdir()))
    status, _, said = await finished(one.migrate("takeover", *options))
    assert status == 7, said
    assert code in said
    assert "nothing was changed" in said
    assert before == (one.saved(), one.ip("-d link"), sorted(path.name for path in one.conf.iterdir()))
    assert held(one.state) is None
    return said


async def test_everything_that_stands_in_the_way_is_told_at_once_and_before_anything(world: World) -> None:
    n1 = world.n1
    n1.sh("iptables-nft -P FORWARD DROP; iptables-nft -A cali-FORWARD -s 192.0.2.1 -j DROP")
    n1.sh("ip link add vxlan.calico type vxlan id 4096 dstport 4789; ip link add calistranger type veth")
    (n1.conf / "00-other.conf").write_text(json.dumps({"name": "other", "type": "other"}))
    (n1.bin / "towpath-cni").rename(n1.bin / "towpath-cni.away")
    said = await refused(n1, "TP7102")
    for code, word in (
        ("TP7103", "vxlan.calico"),
        ("TP7105", "192.0.2.1"),
        ("TP7106", "calistranger"),
        ("TP7108", "FORWARD"),
        ("TP7120", "towpath-cni"),
    ):
        assert code in said, said
        assert word in said, said
    status, shown, _ = await finished(n1.migrate("takeover", "--dry-run", "-o", "json"))
    assert status == 3
    assert len(json.loads(shown)["refused"]) >= 6


async def test_a_node_without_kube_proxy_a_pod_nobody_knows_and_no_api(world: World) -> None:
    n1 = world.n1
    for family in ("iptables", "ip6tables"):
        for chain in ("PREROUTING", "OUTPUT"):
            rule = f'{chain} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
            n1.sh(f"{family}-nft -t nat -D {rule}")
        n1.sh(f"{family}-nft -t nat -X KUBE-SERVICES")
    await refused(n1, "TP7104")
    world.api.remove(PODS, "web", "default")
    await settled(lambda: not in_felix(n1, "web") and f"cali-tw-{dev('web')}" not in n1.saved(), n1)
    for file in (n1.cni_state / "results").iterdir():
        file.unlink()
    said = await refused(n1, "TP7106", "--allow", "TP7104")
    assert "warning TP7104" in said
    await world.api.down()
    await refused(n1, "TP7114")
    await world.api.up()


async def test_where_canal_never_was(world: World) -> None:
    n1 = world.n1
    (n1.conf / programs.CONFLIST).unlink()
    await refused(n1, "TP7101")
    (n1.conf / "10-other.conflist").write_text(n1.conflist.replace('"host-local"', '"calico-ipam"'))
    assert "calico-ipam" in await refused(n1, "TP7101")
    status, _, said = await finished(n1.migrate("handback"))
    assert (status, "TP7111" in said) == (7, True)


async def test_rules_that_no_program_can_change(world: World, tmp_path: File) -> None:
    """Without iptables and ipset it is not even known what is there."""
    folder = tmp_path / "path"
    folder.mkdir()
    status, _, said = await finished(world.n1.migrate("takeover", PATH=str(folder)))
    assert status == 7
    assert "TP7107 iptables-nft" in said
    assert "nothing was changed" in said


async def test_whoever_does_not_come_or_go_is_named_and_the_same_command_goes_on(world: World) -> None:
    n1 = world.n1
    with probes(*paths(world)) as running:
        status, _, said = await finished(n1.migrate("takeover", "--patience=2"))
        assert (status, "TP7110" in said) == (7, True), said  # there is no agent
        async with agent_running(n1):
            await settled(lambda: n1.get("/healthz")[0] == 200, n1)
            for _ in range(ATTEMPTS):  # on a busy machine the agent too may not be there in time
                status, _, said = await finished(n1.migrate("takeover", "--patience=5"))
                if "TP7110" not in said:
                    break
            assert (status, "TP7109 flanneld" in said) == (7, True), said  # Canal does not leave
            status, _, said = await taken_over(world)
            assert status == 0, said
            status, _, said = await finished(n1.migrate("handback", "--patience=2"))
            assert (status, "TP7118" in said) == (7, True), said  # Canal does not come
            status, _, said = await handed_back(world)
            assert status == 0, said
    judge(running, back=True)


async def test_two_at_once(world: World) -> None:
    first = world.n1.migrate("takeover", "--patience=300")  # for an agent, and there is none
    await settled(lambda: (world.n1.state / "migration.jsonl").exists(), world.n1)
    status, _, said = await finished(world.n1.migrate("takeover"))
    assert (status, "another towpath node" in said) == (7, True)
    first.kill()
    await finished(first)


async def test_a_journal_that_cannot_be_read(world: World) -> None:
    (world.n1.state / "migration.jsonl").write_text('{"event":"start"\n{"event":"end"}\n')
    said = await refused(world.n1, "TP7112")
    assert "migration.jsonl:1" in said
