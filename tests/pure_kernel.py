"""The least a kernel does with our operations, as a function: enough to see where a plan leads."""

from msgspec.structs import replace

from towpath.model.net import Address, Fdb, Neighbour, Redirect, Route, Shaper
from towpath.model.nft import NftChain, NftTable
from towpath.model.op import Add, AddLink, Delete, DelLink, NftUpdate, Op, SetLink, SetSysctl
from towpath.model.state import NetState
from towpath.reconcile.diff import sysctl_device

Item = Address | Route | Neighbour | Fdb | Shaper | Redirect
FIELDS: dict[type, str] = {
    Address: "addresses",
    Route: "routes",
    Neighbour: "neighbours",
    Fdb: "fdb",
    Shaper: "shapers",
    Redirect: "redirects",
}


def key(item: Item) -> object:
    """What the kernel holds at most one of; adding replaces."""
    match item:
        case Address():
            return item.dev, item.interface
        case Route():
            return item.dst, item.table
        case Neighbour():
            return item.dev, item.addr
        case Fdb():
            return item.dev, item.mac
        case Shaper() | Redirect():
            return item.dev


def step(state: NetState, op: Op) -> NetState:
    """``state`` after ``op``. AssertionError for what a kernel would refuse."""
    match op:
        case AddLink(link):
            assert link.name not in state.links, "EEXIST"
            return replace(state, links={**state.links, link.name: link})
        case SetLink(name):
            assert name in state.links, "ENODEV"
            new = {k: getattr(op, k) for k in ("mtu", "mac", "up") if getattr(op, k) is not None}
            kept = [n for n in state.neighbours if n.dev != name or op.mac is None]
            links = {**state.links, name: replace(state.links[name], **new)}
            return replace(state, links=links, neighbours=frozenset(kept))
        case DelLink(name):
            return _without_device(state, name)
        case Add(item):
            assert item.dev in state.links, "ENODEV"
            assert not isinstance(item, Redirect) or item.ifb in state.links, "ENODEV"
            field = FIELDS[type(item)]
            kept = [other for other in getattr(state, field) if key(other) != key(item)]
            return replace(state, **{field: frozenset([*kept, item])})
        case Delete(item):
            field = FIELDS[type(item)]
            hit = key if isinstance(item, Neighbour | Shaper | Redirect) else _same
            kept = [other for other in getattr(state, field) if hit(other) != hit(item)]
            return replace(state, **{field: frozenset(kept)})
        case SetSysctl(path, value):
            assert (dev := sysctl_device(path)) is None or dev in state.links, "ENOENT"
            return replace(state, sysctls={**state.sysctls, path: value})
        case NftUpdate():
            return replace(state, nft=_transaction(state.nft, op))
    raise AssertionError(op)


def _same(item: object) -> object:
    return item


def _without_device(state: NetState, name: str) -> NetState:
    fields = {
        field: frozenset(
            item
            for item in getattr(state, field)
            if item.dev != name and not (isinstance(item, Redirect) and item.ifb == name)
        )
        for field in FIELDS.values()
    }
    return replace(
        state,
        links={n: link for n, link in state.links.items() if n != name},
        sysctls={p: v for p, v in state.sysctls.items() if sysctl_device(p) != name},
        **fields,
    )


def _transaction(table: NftTable | None, update: NftUpdate) -> NftTable:
    if table is None or update.recreate:
        table = NftTable(name=update.table)
    sets, chains = dict(table.sets), dict(table.chains)
    for decl in update.add_sets:
        assert decl.name not in sets or replace(sets[decl.name], elements={}) == decl, "EEXIST"
        sets.setdefault(decl.name, decl)
    for name, hook in update.add_chains:
        old = chains.setdefault(name, NftChain(name=name, hook=hook)).hook
        assert (old is None) == (hook is None), "EEXIST"
        assert old is None or hook is None or replace(old, policy=hook.policy) == hook, "EEXIST"
        chains[name] = replace(chains[name], hook=hook)
    for decl, elements in update.del_elements:
        left = {k: v for k, v in sets[decl.name].elements.items() if k not in elements}
        sets[decl.name] = replace(sets[decl.name], elements=left)
    for decl, elements in update.add_elements:
        there = sets[decl.name].elements
        assert all(there.get(k, v) == v for k, v in elements.items()), "EEXIST"
        sets[decl.name] = replace(sets[decl.name], elements={**there, **elements})
    for chain in update.set_chains:
        assert chain.name in chains, "ENOENT"
        chains[chain.name] = replace(chains[chain.name], rules=chain.rules)
    for name in update.del_chains:
        del chains[name]
    for name in update.del_sets:
        del sets[name]
    return NftTable(name=table.name, sets=sets, chains=chains)
