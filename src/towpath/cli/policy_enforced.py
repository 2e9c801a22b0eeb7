"""What the kernels of a live cluster hold for a flow, asked of the nodes of the pods that decide."""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from towpath.api.core import Node
from towpath.api.inquiry import ANSWER, MOST_FLOWS, QUESTION, Answer, Asked, Enforcement, Question, answer_on
from towpath.cli.node_question import ANSWER_WITHIN, answer_to
from towpath.cli.policy_input import Asked as World
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, KubeError
from towpath.policy.evaluate import Flow
from towpath.policy.explain import SideExplained
from towpath.policy.world import ObjectKey


class OnNode(msgspec.Struct, frozen=True):
    """What one node's kernel does for one side. ``node`` empty: it cannot be told whom to ask."""

    node: str
    enforcement: Enforcement


def asked_about(flow: Flow, side: SideExplained) -> Asked:
    """What to ask the node of a side's pod, or host endpoint."""
    return Asked(
        direction=side.direction,
        source=str(flow.source),
        destination=str(flow.destination),
        protocol=flow.protocol,
        port=flow.destination_port,
        icmp_type=flow.icmp_type,
        icmp_code=flow.icmp_code,
        host=side.endpoint if side.aspects else "",
        aspects=side.aspects,
    )


def node_of(world: World, side: SideExplained) -> str:
    """Where the side is judged; empty if its pod has no node, or if it is neither a pod nor asked."""
    if side.aspects:
        hosts = (one for one in world.assembled.world.endpoints if one.name == side.endpoint)
        return next((one.node for one in hosts), "")
    kind, _, rest = side.endpoint.partition("/")
    namespace, _, name = rest.partition("/")
    sourced = world.objects.get(ObjectKey("", kind, namespace, name))
    spec = sourced.raw.get("spec") if sourced is not None else None
    node = spec.get("nodeName") if isinstance(spec, Mapping) else None
    return node if isinstance(node, str) else ""


async def ask(client: Client, wanted: Mapping[str, Iterable[Asked]]) -> dict[tuple[str, Asked], Enforcement]:
    """The answers by node and question. A node that does not answer has one that says so."""
    nodes = {node: tuple(flows)[:MOST_FLOWS] for node, flows in wanted.items()}
    answers = await asyncio.gather(*(_ask_node(client, node, flows) for node, flows in nodes.items()))
    return {
        (node, flow): found
        for (node, flows), answer in zip(nodes.items(), answers, strict=True)
        for flow, found in zip(flows, answer, strict=True)
    }


async def _ask_node(client: Client, node: str, flows: Sequence[Asked]) -> Sequence[Enforcement]:
    try:
        answer = await _answer(client, node, flows)
    except Forbidden as error:
        problem = f"it may not be asked, which takes the right to patch nodes: {error}"
    except KubeError as error:
        problem = str(error)
    else:
        if answer is not None and len(answer.flows) == len(flows):
            return answer.flows
        problem = f"its agent did not answer within {ANSWER_WITHIN:.0f} s (see towpath status)"
    return [Enforcement(problem=problem)] * len(flows)


async def _answer(client: Client, node: str, flows: Sequence[Asked]) -> Answer | None:
    nonce = secrets.token_hex(8)
    question = msgspec.json.encode(Question(nonce=nonce, flows=tuple(flows))).decode()

    def read(found: Node) -> Answer | None:
        answer = answer_on(found)
        return answer if answer is not None and answer.nonce == nonce else None

    return await answer_to(client, node, (QUESTION, ANSWER), question, read)
