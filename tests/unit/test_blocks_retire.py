"""What is left of nodes that are no more is cleared away, and nothing else."""

from test_blocks_machine import POOL, Api, Node

from towpath.agent.block_retirement import Lost
from towpath.ipam.affinity import Config, Handle, read_handle
from towpath.ipam.block_plan import Demand, handle_of, reserve
from towpath.ipam.block_retire import handles_on, retire
from towpath.ipam.block_writes import Write, create_handle
from towpath.ipam.blocks import Owner, read_block, take, write_block

CALICO = "k8s-pod-network.aa"


def with_two_nodes() -> tuple[Api, Node, Node]:
    """Both have a block and addresses of it; the first has lent one to a pod of Calico's on the second."""
    api = Api()
    one, two = Node("a", api), Node("b", api)
    for node in (one, two):
        node.restart()
        while not node.stock(Config()):
            node.write(reserve(node.world(Config()), Demand(pools=(POOL,), batch=3)))
    name = next(
        n for (p, n), o in api.objects.items() if p == "ipamblocks" and o["spec"]["affinity"] == "host:a"
    )
    block = read_block(api.objects["ipamblocks", name])
    lent = take(
        block, [block.address(block.free[0])], Owner(CALICO, {"node": "b", "pod": "p", "namespace": "n"})
    )
    api.apply(create_handle(Handle(handle=CALICO, counts={str(block.cidr): 1}), "lent"))
    api.apply(Write(plural="ipamblocks", verb="update", name=name, object=write_block(lent)))
    return api, one, two


def test_of_a_lost_node_nothing_is_left_and_of_others_all() -> None:
    api, one, two = with_two_nodes()
    before = one.stock(Config())
    two.restart()
    names = handles_on("b", two.mirror.blocks)
    assert names == {CALICO, handle_of("b")}
    for _ in range(40):
        two.restart()
        handles = {n: read_handle(o) for n in names if (o := api.objects.get(("ipamhandles", n))) is not None}
        write = retire(two.world(Config()), handles)
        if write is None:
            break
        api.apply(write)
    else:
        raise AssertionError("it never ends")
    one.restart()
    assert one.stock(Config()) == before
    assert sorted(api.objects) == [
        ("blockaffinities", next(n for p, n in api.objects if p == "blockaffinities")),
        ("ipamblocks", next(n for p, n in api.objects if p == "ipamblocks")),
        ("ipamhandles", handle_of("a")),
    ]
    assert api.objects["ipamhandles", handle_of("a")]["spec"]["block"] == {
        str(next(iter(one.mirror.blocks))): 3
    }


def test_a_node_is_lost_when_its_object_and_its_pods_have_been_gone_for_long() -> None:
    _, one, _ = with_two_nodes()
    one.restart()
    now = [0.0]
    first, second = Lost(lambda: now[0]), Lost(lambda: now[0])

    def due(judge: Lost, me: str, nodes: tuple[str, ...], inhabited: tuple[str, ...] = ()) -> list[str]:
        return judge.due(me, one.mirror, nodes, inhabited)

    assert due(first, "a", ("a", "b")) == []
    assert due(first, "a", ("a", "c")) == [] and due(second, "c", ("a", "c")) == []
    now[0] = 299.0
    assert due(first, "a", ("a", "c")) == []
    now[0] = 301.0
    assert due(first, "a", ("a", "c")) == ["b"]
    assert due(second, "c", ("a", "c")) == []  # another is to do it first
    assert due(first, "a", ("a", "c"), ("b",)) == []  # the API has a pod there: all over again
    assert due(first, "a", ("a", "c")) == []
    now[0] = 340.0
    assert due(second, "c", ("a", "c")) == ["b"]
