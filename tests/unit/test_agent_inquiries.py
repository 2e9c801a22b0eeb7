"""Questions on the own Node are answered once, from the table in force and the kernel's counters."""

import asyncio
from ipaddress import ip_address

import msgspec
import pytest
from msgspec.structs import replace

from towpath.agent.inquiries import Inquiries
from towpath.api.core import Node
from towpath.api.inquiry import ANSWER, QUESTION, Answer, Asked, Question, answer_on
from towpath.api.meta import ObjectMeta
from towpath.kernel.port import KernelRefused
from towpath.model.attachment import Attachment
from towpath.model.nft import Key, NftChain, NftSet, NftTable

POD = Attachment(
    container_id="c",
    ifname="eth0",
    network="towpath",
    netns="/n",
    host_ifname="cali0",
    addresses=(ip_address("10.0.0.2"),),
    mac="",
    mtu=1450,
    boot_id="b",
)
TABLE = NftTable(
    name="towpath",
    sets={
        "pod_to": NftSet(
            name="pod_to", key=("ifname",), data=("verdict",), elements={("cali0",): ("goto pi-1",)}
        ),
        "pod_from": NftSet(
            name="pod_from", key=("ifname",), data=("verdict",), elements={("cali0",): ("return",)}
        ),
        "class4": NftSet(
            name="class4", key=("ipv4_addr",), data=("classid",), elements={(ip_address("10.0.0.1"),): (3,)}
        ),
        "pi-1": NftSet(
            name="pi-1", key=("classid",), data=("verdict",), counter=True, elements={(3,): ("goto cs-1",)}
        ),
    },
    chains={
        "pi-1": NftChain(
            name="pi-1", rules=("jump src_class", "meta priority vmap @pi-1", "counter goto denied")
        ),
        "cs-1": NftChain(name="cs-1", rules=("meta l4proto 6 th dport 80 return", "counter goto denied")),
    },
)
TO_POD = Asked(direction="ingress", source="10.0.0.1", destination="10.0.0.2", protocol=6, port=81)


class Counting:
    """Every look finds one packet more."""

    def __init__(self) -> None:
        self.looks = 0

    def counters(self, table: str, name: str) -> dict[Key, tuple[int, int]]:
        self.looks += 1
        return {(3,): (self.looks, 60 * self.looks)}

    def rule_counters(self, table: str, chain: NftChain) -> list[tuple[int, int] | None]:
        return [(self.looks, 60 * self.looks) if "counter" in rule else None for rule in chain.rules]


def inquiries(kernel: Counting | None = None, table: NftTable | None = TABLE) -> Inquiries:
    return Inquiries(kernel or Counting(), asyncio.Lock(), lambda: table, lambda: (POD,), dict)


def node(nonce: str, *flows: Asked) -> Node:
    text = msgspec.json.encode(Question(nonce=nonce, flows=flows)).decode()
    return Node(ObjectMeta(name="n1", annotations={QUESTION: text}))


def read(annotations: dict[str, str]) -> Answer:
    found = answer_on(Node(ObjectMeta(name="n1", annotations=annotations)))
    assert found is not None
    return found


async def test_a_question_is_answered_once_and_only_while_it_stands() -> None:
    asked = inquiries()
    assert await asked.annotations(None) == {}
    first = await asked.annotations(node("a", TO_POD))
    assert await asked.annotations(node("a", TO_POD)) == first
    (answer,) = read(first).flows
    assert answer.allowed is False
    assert [str(hit) for hit in answer.hits] == [
        'element { "cali0" : goto pi-1 } of pod_to',
        "element { 10.0.0.1 : 0:3 } of class4",
        "element { 0:3 : goto cs-1 } of pi-1 [1 packets, 60 bytes]",
        "rule of cs-1: counter goto denied [1 packets, 60 bytes]",
    ]
    (again,) = read(await asked.annotations(node("b", TO_POD))).flows
    assert again.hits[-1].packets == 2  # asked anew
    assert await asked.annotations(Node(ObjectMeta(name="n1"))) == {}
    nonsense = Node(ObjectMeta(name="n1", annotations={QUESTION: '{"nonce": 3}'}))
    assert await asked.annotations(nonsense) == {}


async def test_both_sides_and_who_is_not_here() -> None:
    out = Asked(direction="egress", source="10.0.0.2", destination="10.0.0.1", protocol=6, port=1)
    strange = Asked(direction="egress", source="10.0.0.9", destination="10.0.0.1", protocol=6)
    odd = [
        Asked(direction="egress", source="x", destination="10.0.0.1", protocol=6),
        Asked(direction="egress", source="10.0.0.2", destination="fd00::1", protocol=6),
    ]
    answer = read(await inquiries().annotations(node("a", out, strange, *odd)))
    assert answer.flows[0].allowed
    assert not answer.flows[0].problem
    assert answer.flows[1].problem == "no pod of this node has the address 10.0.0.9"
    assert all(flow.problem and not flow.hits for flow in answer.flows[2:])
    (early,) = read(await inquiries(table=None).annotations(node("a", out))).flows
    assert "not in force" in early.problem
    many = read(await inquiries().annotations(node("a", *[out] * 99)))
    assert len(many.flows) == 16


async def test_a_host_endpoint_is_asked_at_its_interface() -> None:
    rules = ('iifname "eth0" ct state invalid counter goto denied', 'iifname "eth0" goto pi-1')
    hosted = replace(TABLE, chains={**TABLE.chains, "host_in": NftChain(name="host_in", rules=rules)})
    hosts = {"eth0": "HostEndpoint/up"}
    asked = Inquiries(Counting(), asyncio.Lock(), lambda: hosted, lambda: (POD,), lambda: hosts)
    up = replace(TO_POD, host="HostEndpoint/up", aspects=("pre-dnat", "local"))
    answer = read(await asked.annotations(node("a", up, replace(up, port=80), replace(up, host="x"))))
    denied, allowed, unknown = answer.flows
    assert denied.allowed is False
    assert [hit.name for hit in denied.hits] == ["host_in", "class4", "pi-1", "cs-1"]
    assert denied.hits[-1].packets is not None
    assert allowed.allowed is True and allowed.hits[-1].text == "meta l4proto 6 th dport 80 return"
    assert unknown.problem == "x stands at no interface of this node"
    (quiet,) = read(
        await asked.annotations(node("b", replace(up, direction="egress", aspects=("local",))))
    ).flows
    assert quiet.allowed is True and quiet.problem.startswith("no rule asks about it")


async def test_what_the_kernel_refuses_is_said() -> None:
    class Refusing(Counting):
        def counters(self, table: str, name: str) -> dict[Key, tuple[int, int]]:
            raise KernelRefused("list", 1, "not permitted")

    (answer,) = read(await inquiries(Refusing()).annotations(node("a", TO_POD))).flows
    assert "not permitted" in answer.problem


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({"from": "10.0.0.1", "to": "10.0.0.2", "port": "80/tcp"}, 200, "th dport 80 return"),
        ({"from": "10.0.0.1", "to": "10.0.0.2"}, 200, "egress: no pod of this node has the address 10.0.0.1"),
        ({"from": "10.0.0.1"}, 400, "ask for"),
        ({"from": "10.0.0.1", "to": "x"}, 200, "does not appear to be"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "port": "http"}, 400, "ask for"),
        ({"from": "10.0.0.1", "to": "10.0.0.2", "port": "80/quic"}, 400, "ask for"),
    ],
)
async def test_the_page(query: dict[str, str], status: int, text: str) -> None:
    page = await inquiries().page(query)
    assert page.status == status
    assert text in page.text
    assert ANSWER not in page.text
