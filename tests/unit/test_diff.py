"""``diff`` leads to what is desired, from anywhere, touches nothing else, takes nothing away too early."""

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pure_kernel import FIELDS, key, step
from towpath.model.net import Address, Fdb, Ifb, Link, Neighbour, Redirect, Route, Shaper, Vxlan
from towpath.model.nft import Hook, NftChain, NftSet, NftTable
from towpath.model.op import Add, AddLink, Delete, DelLink, SetSysctl
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff
from towpath.reconcile.links import compatible, foreign

T = TypeVar("T")
SCOPE = Scope(devices=frozenset({"flannel.1", "flannel.2"}), networks=frozenset({ip_network("10.42.0.0/16")}))
DEVICES = ("flannel.1", "flannel.2", "calia", "calib", "tpba", "eth0", "br0")
MACS = ("0e:00:00:00:00:01", "0e:00:00:00:00:02")
ADDRS = tuple(ip_address(a) for a in ("10.42.0.0", "10.42.1.0", "192.0.2.1"))
CLUSTER = tuple(ip_network(n) for n in ("10.42.0.0/24", "10.42.2.0/24", "10.42.1.5/32"))
DSTS = (*CLUSTER, *(ip_network(n) for n in ("10.9.0.0/16", "fe80::/64", "0.0.0.0/0")))

dev = st.sampled_from(DEVICES)
vxlan = st.builds(
    Vxlan, vni=st.sampled_from([1, 2]), port=st.just(8472), local=st.just(ADDRS[2]), underlay=st.just("eth0")
)
kind = st.one_of(st.none(), vxlan, st.just(Ifb()))
links = st.builds(
    Link,
    name=dev,
    kind=kind,
    mtu=st.sampled_from([0, 1400, 1450]),
    mac=st.sampled_from([None, *MACS]),
    up=st.booleans(),
)
items: dict[str, st.SearchStrategy[Any]] = {
    "addresses": st.builds(
        Address,
        dev=dev,
        interface=st.sampled_from([ip_interface("10.42.0.0/32"), ip_interface("10.42.0.1/24")]),
        scope=st.sampled_from(["global", "link"]),
    ),
    "routes": st.builds(
        Route,
        dst=st.sampled_from(DSTS),
        dev=dev,
        via=st.sampled_from([None, ADDRS[1], ADDRS[2]]),
        table=st.sampled_from([254, 254, 100]),
    ),
    "neighbours": st.builds(Neighbour, dev=dev, addr=st.sampled_from(ADDRS), mac=st.sampled_from(MACS)),
    "fdb": st.builds(Fdb, dev=dev, mac=st.sampled_from(MACS), dst=st.sampled_from(ADDRS)),
    "shapers": st.builds(
        Shaper, dev=dev, rate=st.sampled_from([8_000, 16_000]), burst=st.sampled_from([100_000, 100_001])
    ),
    "redirects": st.builds(Redirect, dev=dev, ifb=st.sampled_from(["tpba", "eth0"])),
}
sysctls = st.dictionaries(
    st.sampled_from(
        ["net/ipv4/ip_forward", "net/ipv4/conf/calia/proxy_arp", "net/ipv6/conf/flannel.1/accept_ra"]
    ),
    st.sampled_from(["0", "1"]),
)
sets = st.builds(
    lambda name, data, elements: NftSet(
        name=name,
        key=("inet_service",),
        data=data,
        elements={(k,): (v,) if data else () for k, v in elements.items()},
    ),
    st.sampled_from(["s", "t"]),
    st.sampled_from([(), ("mark",)]),
    st.dictionaries(st.integers(1, 3), st.tuples(st.integers(1, 2))),
)
hooks = st.builds(
    Hook,
    type=st.just("filter"),
    hook=st.just("input"),
    priority=st.sampled_from([0, 5]),
    policy=st.sampled_from(["accept", "drop"]),
)
chains = st.builds(
    NftChain,
    name=st.sampled_from(["c", "d", "e"]),
    hook=st.one_of(st.none(), hooks),
    rules=st.lists(st.sampled_from(["accept", "drop"]), max_size=2).map(tuple),
)
tables = st.builds(
    lambda s, c: NftTable(name="towpath", sets={x.name: x for x in s}, chains={x.name: x for x in c}),
    st.lists(sets),
    st.lists(chains),
)


def unique(found: Iterable[T], by: Callable[[T], object]) -> frozenset[T]:
    return frozenset({by(item): item for item in found}.values())


@st.composite
def states(draw: st.DrawFn, *, observed: bool) -> NetState:
    """A state as a kernel can show it: nothing without its device; or one as somebody may desire it."""
    there = {link.name: link for link in draw(st.lists(links, max_size=5))}
    if observed:
        there = {n: replace(x, mtu=x.mtu or 1500, mac=x.mac or "0e:00:00:00:00:09") for n, x in there.items()}
    fields: dict[str, Any] = {}
    for field, strategy in items.items():
        found = draw(st.lists(strategy, max_size=3))
        if observed:
            found = [i for i in found if i.dev in there and getattr(i, "ifb", i.dev) in there]
        # The kernel may hold several routes to one place (metrics) and several endpoints for one MAC.
        plural = observed and field in {"routes", "fdb"}
        fields[field] = frozenset(found) if plural else unique(found, key)
    settings_ = draw(sysctls)
    if observed:
        settings_ = {p: v for p, v in settings_.items() if "conf" not in p or p.split("/")[3] in there}
    return NetState(links=there, sysctls=settings_, nft=draw(st.one_of(st.none(), tables)), **fields)


def ours(item: Any, observed: NetState, desired: NetState) -> bool:
    """The scope's own words, once more."""
    on_ours = item.dev in SCOPE.devices or (item.dev.startswith("cali") and item.dev in desired.links)
    match item:
        case Address():
            return item.dev in SCOPE.devices and not item.interface.is_link_local
        case Fdb():
            return item.dev in SCOPE.devices
        case Neighbour():
            return on_ours
        case Shaper() | Redirect():
            wanted = desired.links.get(item.dev)
            return item.dev in SCOPE.devices or (wanted is not None and wanted.kind == Ifb())
        case Route():
            if item.dst.is_link_local or kernel_made(item, observed, desired):
                return False
            into = item.dst in CLUSTER
            return on_ours or (into and item.via is not None and item.table == 254)
    raise AssertionError(item)


def kernel_made(item: Route, observed: NetState, desired: NetState) -> bool:
    addresses = {(a.interface.network, a.dev) for a in observed.addresses | desired.addresses}
    return item.via is None and (item.dst, item.dev) in addresses


def all_items(state: NetState) -> set[Any]:
    return {item for field in FIELDS.values() for item in getattr(state, field)}


def carried_out(observed: NetState, desired: NetState) -> NetState:
    """The state after one turn, and a second for what the first could not see.

    Of several routes to one place, or endpoints of one MAC, an addition replaces one.
    """
    state = observed
    for op in diff(observed, desired, SCOPE):
        state = step(state, op)
    for op in diff(state, desired, SCOPE):
        assert isinstance(op, Delete), op
        state = step(state, op)
    return state


def bearing(observed: NetState, desired: NetState) -> set[str]:
    """Devices on which the desired can be had: there or to be made, of the right kind or replaceable."""
    names = set()
    for name in DEVICES:
        seen, wanted = observed.links.get(name), desired.links.get(name)
        makeable = wanted is not None and wanted.kind is not None
        if seen is None:
            good = makeable
        elif wanted is None:
            good = name not in SCOPE.devices
        else:
            replaceable = name in SCOPE.devices and not foreign(seen, wanted)
            good = compatible(seen, wanted) or replaceable
        if good:
            names.add(name)
    return names


def flushed(item: Any, observed: NetState, desired: NetState) -> bool:
    """A changed MAC costs the device its neighbours."""
    wanted = desired.links.get(item.dev)
    changed = wanted is not None and wanted.mac not in {None, observed.links[item.dev].mac}
    return isinstance(item, Neighbour) and changed


@settings(max_examples=150, deadline=None)
@given(states(observed=True), states(observed=False))
def test_converges_and_stays_within_scope(observed: NetState, desired: NetState) -> None:
    state = carried_out(observed, desired)
    assert diff(state, desired, SCOPE) == ()
    good = bearing(observed, desired)
    wanted = {i for i in all_items(desired) if {i.dev, getattr(i, "ifb", i.dev)} <= good}
    holders = {(type(i), key(i)) for i in all_items(state)}
    assert all((type(i), key(i)) in holders for i in wanted)
    assert all(i in all_items(state) for i in wanted if not isinstance(i, Address | Shaper))
    taken = {(type(i), key(i)) for i in wanted}
    recreated = {op.name for op in diff(observed, desired, SCOPE) if isinstance(op, DelLink)}
    for item in all_items(observed):
        on = {item.dev, getattr(item, "ifb", item.dev)}
        if (type(item), key(item)) in taken or on & recreated or flushed(item, observed, desired):
            continue
        if not ours(item, observed, desired) or item.dev not in good:
            assert item in all_items(state), f"{item} was none of ours"
        else:
            assert item not in all_items(state), f"{item} is left over"
    assert observed.links.keys() - state.links.keys() <= SCOPE.devices
    if desired.nft is not None:
        assert state.nft == desired.nft


@settings(max_examples=150, deadline=None)
@given(states(observed=True), states(observed=False))
def test_what_is_there_and_stays_is_never_missing_in_between(observed: NetState, desired: NetState) -> None:
    ops = diff(observed, desired, SCOPE)
    # Not to be had where the device itself is recreated, or where the MAC that neighbours hang on changes.
    lost = {op.name for op in ops if isinstance(op, DelLink)}
    before = {
        (type(i), key(i))
        for i in all_items(observed)
        if not ({i.dev, getattr(i, "ifb", "")} & lost or flushed(i, observed, desired))
    }
    good = bearing(observed, desired)
    after = {(type(i), key(i)) for i in all_items(desired) if {i.dev, getattr(i, "ifb", i.dev)} <= good}
    state = observed
    for op in ops:
        state = step(state, op)
        assert before & after <= {(type(i), key(i)) for i in all_items(state)}, op.describe()


@given(tables, tables)
def test_tables_take_one_transaction(observed: NftTable, desired: NftTable) -> None:
    ops = diff(NetState(nft=observed), NetState(nft=desired), SCOPE)
    assert len(ops) <= 1
    state = NetState(nft=observed)
    for op in ops:
        state = step(state, op)
    assert state.nft == desired


def test_the_order_of_a_birth() -> None:
    wanted = NetState(
        links={"tpba": Link(name="tpba", kind=Ifb())},
        addresses=frozenset({Address(dev="tpba", interface=ip_interface("10.42.0.1/32"))}),
        routes=frozenset(
            {
                Route(dst=ip_network("0.0.0.0/0"), dev="tpba", via=ip_address("169.254.1.1")),
                Route(dst=ip_network("169.254.1.1/32"), dev="tpba", scope="link"),
            }
        ),
        sysctls={"net/ipv4/conf/tpba/proxy_arp": "1"},
        nft=NftTable(name="towpath"),
    )
    kinds = [type(op.item) if isinstance(op, Add) else type(op) for op in diff(NetState(), wanted, Scope())]
    assert [k.__name__ for k in kinds] == ["NftUpdate", "AddLink", "SetSysctl", "Address", "Route", "Route"]
    routes = [op.item for op in diff(NetState(), wanted, Scope()) if isinstance(op, Add)][1:]
    assert [r.via is None for r in routes if isinstance(r, Route)] == [True, False]


def test_settings_of_a_recreated_device_are_made_anew() -> None:
    path = "net/ipv6/conf/flannel.1/accept_ra"
    kind_ = Vxlan(vni=1, port=8472, local=ADDRS[2], underlay="eth0")
    wanted = NetState(links={"flannel.1": Link(name="flannel.1", kind=kind_)}, sysctls={path: "0"})
    old = replace(kind_, local=ADDRS[1])
    seen = replace(wanted, links={"flannel.1": Link(name="flannel.1", kind=old)})
    assert diff(seen, wanted, SCOPE) == (
        DelLink("flannel.1"),
        AddLink(wanted.links["flannel.1"]),
        SetSysctl(path, "0"),
    )


def test_an_ipv6_gateway_is_given_a_way_of_its_own_while_its_subnet_moves() -> None:
    subnet, gateway = ip_network("fd00:10:42:2::/64"), ip_address("fd00:10:42:2::")
    there = {name: Link(name=name, mtu=1500) for name in ("flannel.1", "eth0")}
    direct = Route(dst=subnet, dev="eth0", via=ip_address("fd00:172:30::12"))
    overlay = Route(dst=subnet, dev="flannel.1", via=gateway, onlink=True)
    stone = Route(dst=ip_network("fd00:10:42:2::/128"), dev="flannel.1")
    seen = NetState(links=there, routes=frozenset({direct}))
    wanted = NetState(links=there, routes=frozenset({overlay}))
    assert diff(seen, wanted, SCOPE) == (Add(stone), Add(overlay), Delete(stone))
    assert diff(replace(seen, routes=wanted.routes), replace(wanted, routes=seen.routes), SCOPE) == (
        Add(direct),
    )
    default = Route(dst=ip_network("::/0"), dev="eth0", via=ip_address("fd00:172:30::1"))
    assert diff(replace(seen, routes=frozenset({default})), wanted, SCOPE) == (Add(overlay),)
    nearer = Route(dst=ip_network("fd00:10:42:2::/127"), dev="flannel.1")
    kept = replace(wanted, routes=frozenset({overlay, nearer}))
    assert diff(replace(seen, routes=frozenset({direct, nearer})), kept, SCOPE) == (Add(overlay),)
