"""Host endpoints as the engine compiles them: what the oracle says of each aspect, after any changes."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policy_compiled import EVERY_ADDRESS, several_flows
from policy_interpreter import applied, check, judged_at, table_of
from policy_worlds import flow, host, hosted_worlds, nets, pod, policy
from towpath.model.nft import NftTable
from towpath.model.policy import (
    HOST_FORWARD_IN,
    HOST_FORWARD_OUT,
    HOST_IN,
    HOST_OUT,
    HOST_PRE_DNAT,
    HOST_RAW_IN,
    HOST_RAW_OUT,
)
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Decision, Flow, verdict, walk
from towpath.policy.ir import (
    KIND,
    TCP,
    Aspect,
    Direction,
    Endpoint,
    NamedPort,
    Peer,
    Ports,
    Rule,
    Tier,
    World,
)
from towpath.policy.matrix import matrix
from towpath.policy.selector import equal

PLACES: dict[str, tuple[Aspect, Direction]] = {
    HOST_IN: ("local", "ingress"),
    HOST_OUT: ("local", "egress"),
    HOST_FORWARD_IN: ("forwarded", "ingress"),
    HOST_FORWARD_OUT: ("forwarded", "egress"),
    HOST_RAW_IN: ("untracked", "ingress"),
    HOST_RAW_OUT: ("untracked", "egress"),
    HOST_PRE_DNAT: ("pre-dnat", "ingress"),
}
ALLOW, HTTP = Rule(action="allow"), NamedPort("http", TCP, 8080)


def compiled(world: World, hosts: dict[str, str], pods: dict[str, str] | None = None) -> NftTable:
    engine = Engine()
    engine.load(world)
    engine.set_local(pods or {})
    engine.set_hosts(hosts)
    table = table_of(engine.program())
    check(table)
    return table


def expected(
    world: World, endpoint: Endpoint, aspect: Aspect, direction: Direction, one: Flow
) -> tuple[bool | None, list[str]]:
    """Allowed explicitly, or not at all; None: others decide. And the beginnings of what is logged."""
    logged: list[str] = []
    for step in walk(world, endpoint, direction, one, aspect):
        if isinstance(step, Decision):
            explicit = aspect in ("untracked", "pre-dnat") and step.final
            return (True if explicit else None) if step.allowed else False, logged
        if step.rule is not None and step.rule.action == "log" and not step.unmet:
            logged.append(f"tp:{step.policy} ")
    raise AssertionError("no decision")


def assert_same(world: World, table: NftTable, hosts: dict[str, str], tried: list[Flow]) -> None:
    by_name = {endpoint.name: endpoint for endpoint in world.endpoints}
    for (interface, name), (chain, place) in product(hosts.items(), PLACES.items()):
        for source, destination in product(EVERY_ADDRESS, EVERY_ADDRESS):
            if source.version == destination.version and source != destination:
                for one in tried:
                    each = replace(one, source=source, destination=destination)
                    verdict, logged = expected(world, by_name[name], *place, each)
                    seen, prefixes = judged_at(table, chain, interface, each)
                    assert seen == verdict, (name, chain, each)
                    assert len(prefixes) == len(logged), (name, chain, each)
                    assert all(map(str.startswith, prefixes, logged))


HOSTS = {"eth0": "HostEndpoint/a", "*": "HostEndpoint/b"}


@settings(deadline=None, max_examples=60)
@given(hosted_worlds(), several_flows)
def test_the_engine_judges_as_the_oracle(world: World, tried: list[Flow]) -> None:
    assert_same(world, compiled(world, HOSTS), HOSTS, tried[:4])


@settings(deadline=None, max_examples=40)
@given(st.lists(hosted_worlds(), min_size=2, max_size=4))
def test_changes_come_to_what_there_would_be_from_scratch(several: list[World]) -> None:
    engine = Engine()
    table = table_of(engine.program())
    pods: dict[str, str] = {}
    before = World()
    for world, hosts in zip(several, (HOSTS, {"eth0": "HostEndpoint/b"}, {}, HOSTS), strict=False):
        for gone in {p.key for p in before.policies} - {p.key for p in world.policies}:
            engine.remove_policy(gone)
        for name in {e.name for e in before.endpoints} - {e.name for e in world.endpoints}:
            engine.remove_endpoint(name)
        for name in {n.name for n in before.network_sets} - {n.name for n in world.network_sets}:
            engine.remove_network_set(name)
        engine.load(world)
        pods = {f"cali{n}": e.name for n, e in enumerate(world.endpoints) if e.labels.get(KIND) == "pod"}
        engine.set_local(pods)
        engine.set_hosts(hosts)
        update = engine.changes()
        table = applied(table, update) if update is not None else table
        check(table)
        assert_same(world, table, hosts, [flow("10.0.0.1", "10.0.0.2", "tcp", 80)])
        before = world


def test_an_endpoint_without_policies_denies_what_is_the_hosts_and_nothing_that_passes() -> None:
    world = World(endpoints=(host("h"),))
    table = compiled(world, {"eth0": "HostEndpoint/h"})
    one = flow("192.0.2.1", "192.0.2.2")
    assert judged_at(table, HOST_IN, "eth0", one) == (False, [])
    assert judged_at(table, HOST_OUT, "eth0", one) == (False, [])
    assert judged_at(table, HOST_IN, "eth1", one) == (None, [])
    assert table.chains.keys() == {HOST_IN, HOST_OUT}


def test_all_interfaces_are_all_that_nobody_names_but_loopback() -> None:
    world = World(endpoints=(host("h"), replace(host("open"), unmatched="allow")))
    table = compiled(world, {"*": "HostEndpoint/h", "eth1": "HostEndpoint/open"})
    one = flow("192.0.2.1", "192.0.2.2")
    for interface, told in (("eth0", False), ("flannel.1", False), ("eth1", None), ("lo", None)):
        assert judged_at(table, HOST_IN, interface, one) == (told, [])
    # Whoever is named does not fall to the one for all, where it has nothing to say either.
    forward = policy("f", selector=equal("app", "x"), ingress=(), apply_on_forward=True)
    both = World(endpoints=(host("h", app="x"), host("open")), policies=(forward,))
    passing = compiled(both, {"*": "HostEndpoint/h", "eth1": "HostEndpoint/open"})
    assert judged_at(passing, HOST_FORWARD_IN, "eth0", one) == (False, [])
    assert judged_at(passing, HOST_FORWARD_IN, "eth1", one) == (None, [])


def test_what_passes_is_told_apart_by_where_it_goes_and_by_its_ports_names() -> None:
    web = policy(
        "web",
        apply_on_forward=True,
        selector=equal(KIND, "hostendpoint"),
        ingress=(
            Rule(
                action="allow",
                protocol=TCP,
                source=Peer(nets=nets("192.0.2.0/24")),
                destination=Peer(selector=equal("app", "web")),
                destination_ports=Ports(names=("http",)),
            ),
        ),
    )
    pods = (pod("x/a", "10.0.0.1", ports=(HTTP,), app="web"), pod("x/b", "10.0.0.2", app="db"))
    world = World(endpoints=(host("h"), *pods), policies=(web,))
    table = compiled(world, {"eth0": "HostEndpoint/h"})

    def let(source: str, destination: str, port: int) -> bool:
        return judged_at(table, HOST_FORWARD_IN, "eth0", flow(source, destination, "tcp", port))[0] is None

    assert let("192.0.2.9", "10.0.0.1", 8080)
    assert not let("192.0.2.9", "10.0.0.1", 80)
    assert not let("198.51.100.1", "10.0.0.1", 8080)
    assert not let("192.0.2.9", "10.0.0.2", 8080)
    assert not let("192.0.2.9", "203.0.113.1", 8080)


def test_an_exception_on_the_own_side_holds_of_addresses_nobody_knows() -> None:
    away = replace(ALLOW, destination=Peer(not_nets=nets("10.0.0.0/8")))
    passing = policy("p", ingress=(away,), apply_on_forward=True)
    world = World(endpoints=(host("h"), pod("x/a", "10.0.0.1")), policies=(passing,))
    table = compiled(world, {"eth0": "HostEndpoint/h"})
    for destination, told in (("10.0.0.1", False), ("10.9.9.9", False), ("203.0.113.1", None)):
        seen = judged_at(table, HOST_FORWARD_IN, "eth0", flow("192.0.2.9", destination))
        assert seen == (told, [])


def test_before_tracking_a_tiers_default_and_an_end_without_verdict_decide_nothing() -> None:
    some = policy("u", ingress=(replace(ALLOW, source=Peer(nets=nets("192.0.2.0/24"))),), do_not_track=True)
    deny = policy(
        "v", ingress=(Rule(action="deny", source=Peer(nets=nets("198.51.100.0/24"))),), do_not_track=True
    )
    tiers = (Tier(name="default", order=1_000_000, default="deny"),)
    world = World(endpoints=(host("h"),), policies=(some, deny), tiers=tiers)
    table = compiled(world, {"eth0": "HostEndpoint/h"})
    for source, told in (("192.0.2.1", True), ("198.51.100.1", False), ("203.0.113.1", None)):
        assert judged_at(table, HOST_RAW_IN, "eth0", flow(source, "192.0.2.2")) == (told, [])
    assert HOST_RAW_OUT not in table.chains
    # To connections that are tracked they are as nothing: the endpoint denies.
    assert judged_at(table, HOST_IN, "eth0", flow("192.0.2.1", "192.0.2.2")) == (False, [])


def test_one_whose_endpoint_is_not_known_yet_leaves_its_interface_alone() -> None:
    assert compiled(World(), {"eth0": "HostEndpoint/h"}).chains == {}


def test_a_flow_to_a_host_passes_all_places_where_it_is_asked() -> None:
    early = policy(
        "early",
        pre_dnat=True,
        ingress=(
            Rule(action="deny", source=Peer(nets=nets("198.51.100.0/24"))),
            Rule(action="allow", source=Peer(nets=nets("192.0.2.0/24"))),
        ),
    )
    late = policy(
        "late", ingress=(Rule(action="allow", protocol=TCP, destination_ports=Ports(ranges=((80, 80),))),)
    )
    world = World(endpoints=(host("h", "10.0.0.9"),), policies=(early, late))
    told = {
        ("198.51.100.1", 80): False,  # before DNAT
        ("198.51.100.1", 22): True,  # a failsafe comes before that
        ("192.0.2.1", 81): True,  # allowed before DNAT, and not asked about any more
        ("203.0.113.1", 80): True,
        ("203.0.113.1", 81): False,
    }
    table = matrix(world)
    for (source, port), allowed in told.items():
        one = flow(source, "10.0.0.9", "tcp", port)
        assert verdict(world, one) == allowed
        assert table.between(one.source, one.destination).contains(TCP, 50000, port) == allowed
    assert not verdict(world, flow("10.0.0.9", "203.0.113.1", "tcp", 80))
    assert verdict(world, flow("10.0.0.9", "203.0.113.1", "tcp", 6443))
