"""CHECK: what ADD promised against what is there."""

from msgspec.structs import replace

from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.desired.pods import PodWiring
from towpath.desired.ruleset import SETS, TABLE, pod_elements
from towpath.model.attachment import Attachment
from towpath.model.nft import NftTable
from towpath.model.state import NetState
from towpath.reconcile.check import differences


def broken_promises(
    att: Attachment, wiring: PodWiring, host: NetState, inside: NetState, known: Result | None
) -> list[str]:
    """One sentence for each item that is missing or different, the node's side first.

    ``known`` is the result of the whole chain, as the runtime remembers it.
    """
    elements = pod_elements(att)
    firewall = NftTable(
        name=TABLE, sets={name: replace(SETS[name], elements=members) for name, members in elements.items()}
    )
    return [
        *differences(replace(wiring.host, nft=firewall), host),
        *(f"in the pod: {line}" for line in differences(_tuned(att, wiring.inside, inside, known), inside)),
    ]


def _tuned(att: Attachment, promised: NetState, seen: NetState, known: Result | None) -> NetState:
    """What was promised, with a lower MTU where a plugin behind us in the chain (tuning) has set one.

    Results tell MTUs from CNI 1.1.0 on; before, any lower one may be meant.
    """
    told = {i.mtu for i in known.interfaces if i.name == att.ifname and i.sandbox} if known else set()
    link, there = promised.links[att.ifname], seen.links.get(att.ifname)
    if there is None or not told or told - {0, there.mtu} or there.mtu >= link.mtu:
        return promised
    return replace(promised, links={**promised.links, att.ifname: replace(link, mtu=there.mtu)})


def broken_results(att: Attachment, r: Request) -> list[str]:
    """How the result the runtime remembers differs from what was leased; a chain may have added to it."""
    known = r.config.prev_result
    if known is None:
        return []
    found = []
    if not any(i.name == att.ifname and i.sandbox for i in known.interfaces):
        found.append(f"prevResult has no interface {att.ifname}")
    addresses = {ip.address.ip for ip in known.ips}
    found += [f"prevResult lacks the leased address {a}" for a in att.addresses if a not in addresses]
    return found
