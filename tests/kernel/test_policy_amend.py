"""Changes of policy applied by themselves leave in the kernel what comparing everything would have left."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
from kernels import linux_kernel
from msgspec.structs import replace

from nodes import DUAL
from policy_events import Events
from towpath.agent.metrics import Metrics
from towpath.agent.planning import Plan
from towpath.agent.reconciler import Reconciler, Step
from towpath.agent.repairs import Repairs
from towpath.desired.node import Desired
from towpath.desired.protection import Peering
from towpath.desired.ruleset import TABLE, ruleset
from towpath.kernel.libnftables import NftContext
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.kernel.nft_owner import ownable
from towpath.model.attachment import Attachment
from towpath.model.finding import Finding
from towpath.model.nft import NftSet
from towpath.model.op import NftUpdate
from towpath.model.state import NetState, Scope
from towpath.policy.engine import Engine

pytestmark = pytest.mark.kernel
OWNED = pytest.mark.parametrize("owned", [False, True], ids=["free", "owned"])


class PolicyPlanner:
    """What the engine says, and the static table around it."""

    def __init__(self, engine: Engine, *, owned: bool) -> None:
        self._engine, self._network, self._begun = engine, replace(DUAL, own_table=owned), False

    def plan(
        self, observed: NetState, attachments: tuple[Attachment, ...]
    ) -> tuple[Plan, tuple[Finding, ...]]:
        if not self._begun and observed.nft is not None:
            self._engine.seed(observed.nft)
        self._begun = True
        program = self._engine.program()
        table = ruleset(self._network, (), (), program, Peering())
        sets = dict(table.sets)
        for name, verdicts in (("pod_from", program.from_pod), ("pod_to", program.to_pod)):
            sets[name] = replace(sets[name], elements={(dev,): data for dev, data in verdicts.items()})
        scope = Scope(devices=frozenset(), pod_prefix="cali", networks=frozenset())
        desired = Desired(state=NetState(nft=replace(table, sets=sets)), scope=scope, findings=())
        return Plan(desired=desired, attachments=(), pod_cidrs=(), pod_mtu=1500), ()


def reconciler(kernel: LinuxKernel, planner: PolicyPlanner) -> Reconciler:
    metrics = Metrics()
    repairs = Repairs(metrics, time.monotonic)
    return Reconciler(kernel, planner, asyncio.Lock(), lambda: (), metrics, repairs, lambda _: None)


class Node:
    """A namespace with an agent's reconciler, and somebody else who uses nft."""

    def __init__(self, kernel: LinuxKernel, netns: int, *, owned: bool) -> None:
        self.engine, self.netns = Engine(), netns
        planner = PolicyPlanner(self.engine, owned=owned)
        self.reconciler = reconciler(kernel, planner)
        self.foreign = run_in(netns, NftContext)

    def changes(self, attachments: tuple[Attachment, ...]) -> NftUpdate:
        return self.engine.changes() or NftUpdate(table=TABLE)

    async def step(self) -> Step:
        step = await self.reconciler.step()
        assert step is not None
        assert not step.failed
        return step


@contextlib.contextmanager
def node(*, owned: bool) -> Iterator[Node]:
    if owned and not ownable():
        pytest.skip("no owners in this kernel")
    with linux_kernel() as (kernel, netns):
        made = Node(kernel, netns, owned=owned)
        yield made
        made.foreign.close()


@OWNED
@pytest.mark.parametrize("seed", range(2))
async def test_random_changes_leave_nothing_for_a_step_to_do(seed: int, owned: bool) -> None:
    events = Events(seed)
    with node(owned=owned) as n:
        await n.step()
        n.foreign.run("add table inet other")
        await n.step()
        for turn in range(150):
            for _ in range(events.random.choice((1, 1, 2, 10))):
                events.happen(n.engine)
            assert await n.reconciler.amend(n.changes)
            assert await n.reconciler.amend(n.changes)
            if turn % 10 == 0:
                n.foreign.run(f"add chain inet other c{turn}")  # so that the table is really listed
                step = await n.step()
                assert step.planned == ()
                assert not step.repair
        # Who comes new, and remembers nothing, sees the same elements and chains.
        with contextlib.closing(run_in(n.netns, LinuxKernel)) as fresh:
            seen, wanted = fresh.observe((), TABLE).nft, n.reconciler.table()
        assert seen is not None
        assert wanted is not None
        assert {name: len(one.rules) for name, one in seen.chains.items()} == {
            name: len(one.rules) for name, one in wanted.chains.items()
        }
        assert {name: one.elements for name, one in seen.sets.items() if not one.interval} == {
            name: one.elements for name, one in wanted.sets.items() if not one.interval
        }


async def test_what_others_change_makes_it_a_step() -> None:
    """A generation that moved is a doubt; the step after it finds what was done, and all is certain again."""
    events = Events(3)
    with node(owned=False) as n:
        await n.step()
        n.foreign.run(f'add element inet {TABLE} pod_to {{ "cali77" : return }}')
        for _ in range(20):
            events.happen(n.engine)
        assert not await n.reconciler.amend(n.changes)
        assert not await n.reconciler.amend(n.changes)
        step = await n.step()
        assert any("-1 of pod_to" in op.describe() for op in step.planned)
        for _ in range(20):
            events.happen(n.engine)
        assert await n.reconciler.amend(n.changes)


async def test_an_owners_table_is_certain_whatever_else_happens() -> None:
    events = Events(4)
    with node(owned=True) as n:
        await n.step()
        for _ in range(20):
            n.foreign.run("add table inet other", "delete table inet other")
            events.happen(n.engine)
            assert await n.reconciler.amend(n.changes)
        assert (await n.step()).planned == ()


async def test_what_the_kernel_refuses_is_left_to_a_step() -> None:
    """A set that another release left under a name that is needed now: the table is made anew, as ever."""
    with node(owned=False) as n:
        await n.step()

        def impossible(attachments: tuple[Attachment, ...]) -> NftUpdate:
            absent = NftSet(name="absent", key=("ifname",))
            return NftUpdate(table=TABLE, add_elements=((absent, {("cali1",): ()}),))

        assert not await n.reconciler.amend(impossible)
        assert not await n.reconciler.amend(n.changes)
        assert (await n.step()).planned == ()
        assert await n.reconciler.amend(n.changes)


async def test_a_repair_is_told_from_a_change_after_amendments() -> None:
    events = Events(5)
    with node(owned=False) as n:
        await n.step()
        for _ in range(30):
            events.happen(n.engine)
        assert await n.reconciler.amend(n.changes)
        n.foreign.run(f"flush chain inet {TABLE} denied")
        assert (await n.step()).repair


@pytest.mark.parametrize("seed", range(3))
async def test_a_restart_changes_no_element_and_no_name(seed: int) -> None:
    """Who comes next numbers classes and calls chains as the kernel has them, whatever led there."""
    events = Events(seed)
    with node(owned=False) as n:
        await n.step()
        for _ in range(100):
            for _ in range(4):
                events.happen(n.engine)
            assert await n.reconciler.amend(n.changes)
        before = n.reconciler.table()
        with contextlib.closing(run_in(n.netns, LinuxKernel)) as kernel:
            engine = Engine()
            engine.load(events.world())
            engine.set_local(events.plugs)
            fresh = reconciler(kernel, PolicyPlanner(engine, owned=False))
            step = await fresh.step()
            assert step is not None
            after = fresh.table()
        assert before is not None
        assert after is not None
        assert {n: s for n, s in after.sets.items() if before.sets.get(n) != s} == {}
        assert after.chains == before.chains
        # Rules that nft prints otherwise than they were written are written once more: nobody can tell.
        for op in step.planned:
            assert isinstance(op, NftUpdate)
            assert not (op.add_sets or op.del_sets or op.add_elements or op.del_elements)
            assert not (op.add_chains or op.del_chains)
