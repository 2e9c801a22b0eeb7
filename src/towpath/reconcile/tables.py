"""The difference between two nftables tables, as one transaction."""

from ipaddress import IPv4Address, IPv6Address, ip_network

from msgspec.structs import replace

from towpath.model.nft import Field, Key, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate


def diff_table(observed: NftTable | None, desired: NftTable | None) -> NftUpdate | None:
    """The transaction that turns ``observed`` (None: absent) into ``desired``; None where nothing is to do.

    One transaction, so that no packet ever meets half a change. A set whose type or a base chain whose hook
    differs under the same name takes the whole table with it, still in one transaction: counters are lost,
    nothing else. ``desired`` None is not our business.
    """
    if desired is None:
        return None
    wanted = desired.owner == "own"
    if observed is None:
        return replace(_update(NftTable(name=desired.name), desired), own=wanted)
    unownable = wanted and observed.owner == "free"
    if observed.doubled or unownable or _misfit(observed, desired):
        return replace(_update(NftTable(name=desired.name), desired), recreate=True, own=wanted)
    update = replace(_update(observed, desired), own=wanted and observed.owner != "own")
    return update if update != NftUpdate(table=desired.name) else None


def _update(observed: NftTable, desired: NftTable) -> NftUpdate:
    add_sets, add_elements, del_elements = [], [], []
    for name, wanted in desired.sets.items():
        declared = replace(wanted, elements={})
        seen = observed.sets.get(name)
        if seen is None:
            add_sets.append(declared)
        have = _elements(seen) if seen is not None else {}
        want = _elements(wanted)
        if have == want:  # nearly always, and far quicker to find out
            continue
        more = {k: v for k, v in want.items() if k not in have or have[k] != v}
        less = {k: v for k, v in have.items() if k not in want or want[k] != v}
        if more:
            add_elements.append((declared, more))
        if less:
            del_elements.append((declared, less))
    gone = [observed.sets[name] for name in sorted(observed.sets.keys() - desired.sets.keys())]
    # A verdict in a map that goes would hold its chain, which may go as well, until the transaction's end.
    del_elements += [
        (replace(d, elements={}), d.elements) for d in gone if d.data == ("verdict",) and d.elements
    ]
    changed = [c for n, c in desired.chains.items() if observed.chains.get(n) != c]
    news = [c for c in changed if c.name not in observed.chains or observed.chains[c.name].hook != c.hook]
    return NftUpdate(
        table=desired.name,
        add_sets=tuple(add_sets),
        add_chains=tuple((c.name, c.hook) for c in news),
        add_elements=tuple(add_elements),
        del_elements=tuple(del_elements),
        set_chains=tuple(changed),
        del_chains=tuple(sorted(observed.chains.keys() - desired.chains.keys())),
        del_sets=tuple(decl.name for decl in gone),
    )


def _misfit(observed: NftTable, desired: NftTable) -> bool:
    sets = ((observed.sets[n], s) for n, s in desired.sets.items() if n in observed.sets)
    chains = ((observed.chains[n], c) for n, c in desired.chains.items() if n in observed.chains)
    return any(_type(a) != _type(b) for a, b in sets) or any(not _rehookable(a, b) for a, b in chains)


def _rehookable(seen: NftChain, wanted: NftChain) -> bool:
    """A base chain's policy can be changed in place; type, hook and priority cannot."""
    if seen.hook is None or wanted.hook is None:
        return seen.hook is wanted.hook
    return replace(seen.hook, policy=wanted.hook.policy) == wanted.hook


def _type(decl: NftSet) -> NftSet:
    return replace(decl, elements={})


def _elements(decl: NftSet) -> dict[Key, Key]:
    """Elements, those of an interval set in the one form: an address there is a network of one."""
    if not decl.interval:
        return decl.elements
    return {tuple(_interval(field) for field in key): data for key, data in decl.elements.items()}


def _interval(field: Field) -> Field:
    if isinstance(field, IPv4Address | IPv6Address):
        return ip_network(field)
    return field
