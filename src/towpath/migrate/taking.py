"""Carries out the steps that are a takeover's own."""

from functools import partial

import msgspec

from towpath.desired.bandwidth import shaping
from towpath.desired.ruleset import SETS, TABLE, pod_elements
from towpath.ipam.errors import AddressError
from towpath.ipam.host_local import HostLocalFolder
from towpath.ipam.store import LeaseStore
from towpath.migrate import processes, steps
from towpath.migrate.cluster import ClusterUnknown
from towpath.migrate.conflist import CanalConf
from towpath.migrate.firewall import ToolFailed
from towpath.migrate.node import Node, Stopped
from towpath.migrate.ownership import ifb_name, owned
from towpath.migrate.plan import Facts
from towpath.migrate.pods import Known
from towpath.model.attachment import Attachment, PodRef
from towpath.model.finding import Finding
from towpath.model.nft import NftTable
from towpath.model.op import DelLink
from towpath.model.policy import DENIED
from towpath.model.state import NetState
from towpath.reconcile.check import differences

_REMOVED_WITHIN = 5.0


async def import_leases(node: Node, facts: Facts, *, final: bool) -> None:
    """Canal's pods into the agent's lease store, which nobody else may have open: the agent is held.

    Raises Stopped where the ``final`` import leaves out a pod, and LeaseStoreError, HostLocalBusy.
    """
    known = await _asked(node, facts.conf)
    store = LeaseStore(node.place.store, boot_id=node.boot_id, clock=lambda: 0.0, hold=0.0)
    folder = HostLocalFolder(node.place.leases_of(facts.conf))
    store.open(patience=30.0)
    try:
        with folder.locked():
            found = node.adoption(facts.conf, known)
            links = node.kernel.observe().links
            for old in store.attachments():
                # Of a former boot, or Canal's and gone since the first import.
                if old.boot_id != node.boot_id or (old.adopted and old.host_ifname not in links):
                    await store.release(old.container_id, old.ifname)
            for att in found.attachments:
                await _take(store, att)
    finally:
        store.close()
    node.place.give_store()
    if final and found.problems:
        raise Stopped(*found.problems)


async def _asked(node: Node, conf: CanalConf) -> Known:
    try:
        return await node.known(conf.network)
    except ClusterUnknown as error:
        raise Stopped(_unreachable(error)) from error


def _unreachable(error: ClusterUnknown) -> Finding:
    fix = "see to the API server, or give --kubeconfig; the command may then be given again"
    return Finding(code="TP7114", object="API server", message=str(error), fix=fix)


async def _take(store: LeaseStore, att: Attachment) -> None:
    known = store.get(att.container_id, att.ifname)
    if known is not None:
        # A container's ports and limits are set once. Where ours are known, Canal's may be gone by now.
        late = (att.ports and not known.ports) or (att.bandwidth and not known.bandwidth)
        if not known.adopted or not late:
            return
        await store.release(att.container_id, att.ifname)
    try:
        await store.add(att, ())
    except AddressError as error:
        message = f"{', '.join(map(str, att.addresses))}: {error}"
        fix = "delete one of the two pods that claim it (kubectl get pods -A -o wide)"
        raise Stopped(
            Finding(code="TP7106", object=f"link {att.host_ifname}", message=message, fix=fix)
        ) from error


async def await_rules(node: Node, step: steps.AwaitRules) -> None:
    """Raises Stopped with what the kernel lacks."""
    try:
        alive = await node.alive()
    except ClusterUnknown as error:
        raise Stopped(_unreachable(error)) from error
    lacking = await node.until(lambda: _not_in_force(node, alive), step.patience)
    if lacking:
        more = f", and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        fix = "look at the agent's log and towpath status; then give the command again, or hand back"
        message = "; ".join(lacking[:3]) + more
        raise Stopped(Finding(code="TP7110", object=f"table inet {TABLE}", message=message, fix=fix))


def _not_in_force(node: Node, alive: frozenset[PodRef]) -> list[str]:
    seen = node.kernel.observe((), TABLE)
    if seen.nft is None:
        return [f"table inet {TABLE} is missing"]
    if "nat_postrouting" not in seen.nft.chains:
        return ["chain nat_postrouting is missing"]
    found: list[str] = []
    for att in node.wired():
        elements = pod_elements(att)
        verdicts = {name: elements.pop(name) for name in ("pod_from", "pod_to")}
        sets = {name: msgspec.structs.replace(SETS[name], elements=of) for name, of in elements.items()}
        wanted = shaping(att).merge(NetState(nft=NftTable(name=TABLE, sets=sets)))
        found += differences(wanted, seen)
        for name, of in verdicts.items():
            found += _undecided(seen.nft, name, next(iter(of))[0], _known(att, alive))
    return found


def _known(att: Attachment, alive: frozenset[PodRef]) -> bool:
    return att.pod is not None and msgspec.structs.replace(att.pod, uid="") in alive


def _undecided(table: NftTable, name: str, dev: object, known: bool) -> list[str]:
    """A pod that the API does not know any more is rightly denied everything."""
    verdict = table.sets[name].elements.get((str(dev),)) if name in table.sets else None
    if verdict is None:
        return [f"element {dev} of map {name} is missing"]
    return (
        [f"{name} of {dev} denies: its policy is not known yet"] if known and DENIED in str(verdict) else []
    )


async def await_daemons(node: Node, facts: Facts, step: steps.AwaitDaemons) -> None:
    """Raises Stopped with those that still run, or if Canal's installer was here again."""
    keepers = partial(processes.canal_daemons, multus=facts.multus is not None)
    running = await node.until(keepers, step.patience, quiet=0.5)
    if running:
        fix = "see that Canal's DaemonSet leaves this node; then give the command again"
        raise Stopped(
            Finding(code="TP7109", object=", ".join(running), message="still runs on this node", fix=fix)
        )
    if node.place.in_force() == facts.conf.file:
        fix = "hand back (towpath node handback), and take over again when Canal's pod does not restart"
        message = "is in force again: Canal's pod was restarted, and its installer wrote it"
        raise Stopped(Finding(code="TP7109", object=facts.conf.file, message=message, fix=fix))


def remove_rules(node: Node, facts: Facts, step: steps.RemoveRules) -> None:
    """Raises Stopped for what is somebody else's, or refused."""
    tables = node.firewall.tables(step.backend, step.family)
    found = owned(tables, facts.conf.network)
    if found.strange:
        fix = "move or delete it, whoever made it; then give the command again"
        raise Stopped(
            *(
                Finding(code="TP7105", object=what, message="is not Canal's, and among Canal's", fix=fix)
                for what in found.strange
            )
        )
    if not found:
        return
    try:
        node.firewall.remove(step.backend, step.family, found.removals)
    except ToolFailed as error:
        raise Stopped(_left(f"iptables rules ({step.backend}, IPv{step.family})", str(error))) from error


def remove_nft(node: Node, facts: Facts) -> None:
    """Raises KernelRefused."""
    node.firewall.remove_nft(_containers(node, facts))


def _containers(node: Node, facts: Facts) -> frozenset[str]:
    """Canal's containers, dead ones included whose lease was never given back."""
    tree = HostLocalFolder(node.place.leases_of(facts.conf)).read()
    return frozenset(lease.container_id for lease in tree.leases) | {
        att.container_id for att in node.leases().attachments
    }


def remove_sets(node: Node) -> None:
    """Raises Stopped."""
    try:
        node.firewall.destroy_sets()
    except ToolFailed as error:
        raise Stopped(_left("Felix's IP sets", str(error))) from error


def remove_ifbs(node: Node, facts: Facts) -> None:
    """Only those nothing is redirected to: that is the agent's doing. Raises KernelRefused."""
    seen = node.kernel.observe()
    names = {ifb_name(facts.conf.network, container) for container in _containers(node, facts)}
    used = {redirect.ifb for redirect in seen.redirects}
    node.kernel.apply([DelLink(name) for name in sorted(names & seen.links.keys() - used)])


async def verify_gone(node: Node, facts: Facts) -> None:
    """Raises Stopped with what is there."""
    left = await node.until(lambda: _leftovers(node, facts), _REMOVED_WITHIN, quiet=0.3)
    if left:
        raise Stopped(_left(left[0], f"is there{f', and {len(left) - 1} more' if len(left) > 1 else ''}"))


def _leftovers(node: Node, facts: Facts) -> list[str]:
    found = [
        f"{removal.table}: {name}"
        for tables in node.tables().values()
        for removal in owned(tables, facts.conf.network).removals
        for name in (*removal.chains, *(rule.text for rule in removal.rules))
    ]
    found += [f"table {family} {name}" for family, name in node.firewall.nft_tables()]
    return found + [f"set {name}" for name in node.firewall.sets()] + processes.canal_daemons()


def _left(what: str, message: str) -> Finding:
    fix = "see what makes or holds it; then give the command again"
    return Finding(code="TP7115", object=what, message=message, fix=fix)
