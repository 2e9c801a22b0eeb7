from collections.abc import Callable
from ipaddress import ip_interface, ip_network

import pytest
from msgspec.structs import replace

from attachments import attachment
from towpath.desired.pods import pod_wiring, standing
from towpath.desired.ruleset import SETS, pod_elements
from towpath.model.attachment import Bandwidth
from towpath.model.net import Address, Link, Route
from towpath.model.nft import NftTable
from towpath.model.state import NetState
from towpath.reconcile.check import differences, missing_devices

ATT = attachment(
    "a", "10.42.0.5", "fd00::5", bandwidth=Bandwidth(ingress_rate=8_000_000, egress_rate=8_000_000)
)
DEV = ATT.host_ifname
TABLE = NftTable(name="towpath", sets={n: replace(SETS[n], elements=e) for n, e in pod_elements(ATT).items()})
GOOD = replace(pod_wiring(ATT).host, nft=TABLE)


def test_nothing_is_said_of_a_promise_kept() -> None:
    assert differences(GOOD, GOOD) == []
    more = replace(
        GOOD,
        links={**GOOD.links, "eth0": Link(name="eth0", mtu=1500)},
        routes=GOOD.routes | {Route(dst=ip_network("0.0.0.0/0"), dev="eth0")},
        sysctls={**GOOD.sysctls, "net/ipv4/ip_forward": "1"},
    )
    assert differences(GOOD, more) == []


def without_routes(state: NetState) -> NetState:
    return replace(state, routes=frozenset(r for r in state.routes if r.dst.version == 6))


def other_route(state: NetState) -> NetState:
    moved = Route(dst=ip_network("10.42.0.5/32"), dev="eth0", scope="link")
    return replace(state, routes=without_routes(state).routes | {moved})


def changed_link(state: NetState) -> NetState:
    link = replace(state.links[DEV], mtu=1500, mac="0e:00:00:00:00:01", up=False)
    return replace(state, links={**state.links, DEV: link})


def no_elements(state: NetState) -> NetState:
    assert state.nft is not None
    return replace(state, nft=replace(state.nft, sets={**state.nft.sets, "pod_to": SETS["pod_to"]}))


def slower(state: NetState) -> NetState:
    shapers = frozenset(replace(s, rate=1_000_000) if s.dev == DEV else s for s in state.shapers)
    return replace(state, shapers=shapers)


def rounded(state: NetState) -> NetState:
    return replace(
        state, shapers=frozenset(replace(s, rate=s.rate + 7, burst=s.burst - 8) for s in state.shapers)
    )


BROKEN: list[tuple[Callable[[NetState], NetState], list[str]]] = [
    (
        lambda s: replace(s, links={k: v for k, v in s.links.items() if k != DEV}),
        [f"link {DEV} is missing"],
    ),
    (
        lambda s: replace(s, links={**s.links, DEV: Link(name=DEV, mtu=1430)}),
        [f"link {DEV} is of another kind, promised veth"],
    ),
    (
        changed_link,
        [
            f"mtu of {DEV} is 1500, promised 1430",
            f"address of {DEV} is 0e:00:00:00:00:01, promised ee:ee:ee:ee:ee:ee",
            f"link {DEV} is down",
        ],
    ),
    (without_routes, [f"route 10.42.0.5/32 dev {DEV} is missing"]),
    (
        other_route,
        [f"route 10.42.0.5/32 dev {DEV} is missing, there is route 10.42.0.5/32 dev eth0"],
    ),
    (
        lambda s: replace(s, sysctls={k: "0" if "proxy_arp" in k else v for k, v in s.sysctls.items()}),
        [f"sysctl net/ipv4/conf/{DEV}/proxy_arp is 0, promised 1"],
    ),
    (lambda s: replace(s, nft=None), ["table inet towpath is missing"]),
    (no_elements, [f"element {DEV} of map pod_to is missing"]),
    (
        slower,
        [
            f"tbf dev {DEV} rate 8000000bit burst 524288bit is missing, "
            f"there is tbf dev {DEV} rate 1000000bit burst 524288bit"
        ],
    ),
    (rounded, []),
]


@pytest.mark.parametrize(("change", "said"), BROKEN)
def test_each_broken_item_is_named(change: Callable[[NetState], NetState], said: list[str]) -> None:
    assert differences(GOOD, change(GOOD)) == said


def test_the_scope_of_an_address_is_no_promise() -> None:
    promised = NetState(addresses=frozenset({Address(dev="a", interface=ip_interface("fe80::1/64"))}))
    seen = NetState(
        addresses=frozenset({Address(dev="a", interface=ip_interface("fe80::1/64"), scope="link")})
    )
    assert differences(promised, seen) == []


def test_pods_links_are_what_nobody_here_can_make() -> None:
    assert missing_devices(NetState(), standing(ATT)) == [DEV]
    assert missing_devices(GOOD, standing(ATT)) == []
