"""What a takeover, or a handback, consists of, in order. Pure.

The order is what keeps pods alive and closed. Taking over: the CNI configuration first, so that no pod is
Canal's from then on; the leases; the agent, whose rules then stand beside Canal's (both have to accept, and
both mean the same); only then may Canal's daemons go, and only after them their rules. Handing back: the
leases before the configuration (Canal's own installer switches that, as soon as its pod starts), Canal's
rules beside ours, ours last.
"""

from typing import Literal

import msgspec

from towpath.install.migration import HANDBACK, TAKEN, TAKEOVER
from towpath.migrate import steps
from towpath.migrate.conflist import SAVED, CanalConf
from towpath.migrate.multus import MultusConf
from towpath.migrate.steps import Backend, Family, Step

Direction = Literal["takeover", "handback"]

TOWPATH_CONFLIST = "10-towpath.conflist"
OUR_PLUGIN = "towpath-cni"
MULTUS_PROGRAMS = ("multus", "multus-shim")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is about, as found when it began; a run that is resumed goes by the facts it began with.

    ``tools``: iptables backends that this node can be changed with. ``switch_text`` is Towpath's conflist.
    ``multus``: its configuration, where pods have their further networks by it.
    ``patience`` in seconds for whatever others have to do. ``portmap``: the backend its rules were in.
    """

    conf: CanalConf
    tools: tuple[tuple[Backend, Family], ...]
    save_folder: str
    switch_text: str = ""
    labelled: bool = True
    patience: float = 600.0
    portmap: Backend | None = None
    multus: MultusConf | None = None


def plan(direction: Direction, facts: Facts) -> tuple[Step, ...]:
    """The steps of a whole run. The same facts give the same steps, so that their numbers can be resumed
    at.
    """
    return _takeover(facts) if direction == "takeover" else _handback(facts)


def _takeover(facts: Facts) -> tuple[Step, ...]:
    multus = (facts.multus,) if facts.multus is not None else ()
    programs = MULTUS_PROGRAMS if multus else ()
    return (
        steps.SaveState(facts.save_folder),
        steps.HoldAgent("all", "this node is being taken over from Canal: its leases are not imported yet"),
        *_label(facts, TAKEOVER),
        # Multus's goes last: without it, and with Canal's still there, pods would get Canal's network alone.
        steps.SwitchConf(on=TOWPATH_CONFLIST, off=facts.conf.file, text=facts.switch_text),
        *(steps.SwitchConf(on=TOWPATH_CONFLIST, off=one.file) for one in multus),
        steps.ImportLeases(final=False),
        *_if(facts, steps.ImportNetworks(final=False)),
        steps.AwaitCalls(plugins=(*facts.conf.types, *programs), patience=facts.patience),
        steps.ImportLeases(final=True),
        *_if(facts, steps.ImportNetworks(final=True)),
        # Felix knows nothing of pods that come now, and drops what it does not know.
        steps.HoldAgent(
            "add", "this node is being taken over: Canal's rules, which drop new pods, still stand"
        ),
        steps.AwaitRules(facts.patience),
        *_label(facts, TAKEN),
        steps.AwaitDaemons(facts.patience),
        *(steps.RemoveRules(backend=backend, family=family) for backend, family in facts.tools),
        steps.RemoveNftTables(),
        steps.RemoveSets(),
        steps.RemoveIfbs(),
        steps.VerifyGone(),
        steps.RetireLeases(),
        *_if(facts, steps.RetireNetworks()),
        steps.ReleaseAgent(),
    )


def _handback(facts: Facts) -> tuple[Step, ...]:
    return (
        steps.HoldAgent(
            "add", "this node is being handed back to Canal: new pods are Canal's", at_least=True
        ),
        steps.ExportLeases(final=False),
        *_if(facts, steps.ExportNetworks(final=False)),
        # Multus's first: Canal's alone must never be what the runtime loads.
        *(steps.RestoreConf(on=one.file, text=one.text) for one in (facts.multus,) if one is not None),
        steps.SwitchConf(on=facts.conf.file, off=TOWPATH_CONFLIST, text=facts.conf.text),
        steps.AwaitCalls(plugins=(OUR_PLUGIN,), patience=facts.patience),
        steps.ExportLeases(final=True),
        *_if(facts, steps.ExportNetworks(final=True)),
        *_label(facts, HANDBACK),
        steps.AwaitCanal(facts.patience),
        steps.RestorePorts(),
        steps.HoldAgent("all", "this node has been handed back to Canal"),
        steps.AwaitAgent(facts.patience),
        steps.RestoreLimits(),
        steps.RemoveTable(),
        steps.RetireStore(),
        *_label(facts, ""),
    )


def _if(facts: Facts, *made: Step) -> tuple[Step, ...]:
    """Where there is Multus."""
    return made if facts.multus is not None else ()


def _label(facts: Facts, value: str) -> tuple[Step, ...]:
    return (steps.Announce(value),) if facts.labelled else ()


__all__ = ["SAVED", "Direction", "Facts", "plan"]
