"""The compiler against the oracle: whatever the world, what the program does is what ``evaluate`` says."""

from hypothesis import given, settings

from policy_compiled import (
    assert_same,
    compiled,
    dense_worlds,
    interfaces,
    named_worlds,
    several_flows,
)
from policy_interpreter import check, class_of, judged
from policy_worlds import flow, nets, pod, policy, worlds
from towpath.policy.evaluate import Flow
from towpath.policy.ir import TCP, UDP, NamedPort, Peer, Ports, Rule, World
from towpath.policy.selector import In


@settings(max_examples=60, deadline=None)
@given(worlds(), several_flows)
def test_the_program_does_what_the_oracle_says(world: World, tried: list[Flow]) -> None:
    table = compiled(world)
    check(table)
    assert_same(world, table, interfaces(world), tried)


@settings(max_examples=120, deadline=None)
@given(dense_worlds(), several_flows)
def test_where_many_policies_apply_as_well(world: World, tried: list[Flow]) -> None:
    table = compiled(world)
    check(table)
    assert_same(world, table, interfaces(world), tried)


@settings(max_examples=60, deadline=None)
@given(named_worlds(), several_flows)
def test_names_are_the_ports_of_whoever_has_them(world: World, tried: list[Flow]) -> None:
    assert_same(world, compiled(world), interfaces(world), tried)


def test_a_peers_named_port_is_its_own() -> None:
    """Two servers call different ports http, a third one none; one calls a port of UDP so."""
    servers = (
        pod("x/one", "10.0.0.1", ports=(NamedPort("http", TCP, 80),), app="server"),
        pod("x/two", "10.0.0.2", ports=(NamedPort("http", TCP, 81),), app="server"),
        pod("x/three", "10.0.0.3", app="server"),
        pod("x/four", "10.0.0.4", ports=(NamedPort("http", UDP, 80),), app="server"),
    )
    client = pod("x/client", "10.0.0.5", ports=(NamedPort("http", TCP, 443),), app="client")
    peer, ports = Peer(selector=In("app", ("server",))), Ports(names=("http",))
    to_http = Rule(action="allow", protocol=TCP, destination=peer, destination_ports=ports)
    world = World(
        policies=(policy("p", selector=In("app", ("client",)), egress=(to_http,)),),
        endpoints=(*servers, client),
    )
    table, plug = compiled(world), "cali4"
    open_ports = {
        number: [
            port
            for port in (80, 81, 443)
            if judged(table, plug, "egress", flow("10.0.0.5", f"10.0.0.{number}", "tcp", port)).allowed
        ]
        for number in (1, 2, 3, 4)
    }
    assert open_ports == {1: [80], 2: [81], 3: [], 4: []}
    assert not judged(table, plug, "egress", flow("10.0.0.5", "10.0.0.4", "udp", 80)).allowed


def test_who_is_excepted_from_a_network_is_nobody_known() -> None:
    """A pod in an allowed network whom the rule leaves out has class 0, and that is written down."""
    rule = Rule(action="allow", source=Peer(nets=nets("10.0.0.0/8"), not_selector=In("app", ("bad",))))
    world = World(
        policies=(policy("p", selector=In("app", ("server",)), ingress=(rule,)),),
        endpoints=(
            pod("x/server", "10.0.0.1", app="server"),
            pod("x/bad", "10.0.0.2", app="bad"),
            pod("x/good", "10.0.0.3", app="good"),
        ),
    )
    table = compiled(world)
    known = {n: class_of(table, flow(f"10.0.0.{n}", "10.0.0.1").source) for n in (2, 3, 9)}
    assert known[2] == 0 != known[3] == known[9]
    assert [
        judged(table, "cali0", "ingress", flow(f"10.0.0.{n}", "10.0.0.1")).allowed for n in (2, 3, 9)
    ] == [False, True, True]
