"""Asking all agents about addresses at once."""

import asyncio
import secrets
from collections.abc import Iterable
from ipaddress import ip_address

import click
import msgspec

from towpath.api.core import Node
from towpath.api.ipam_inquiry import ANSWER, QUESTION, Answer, Question, Verb, answer_on
from towpath.api.report import agent_report
from towpath.cli.node_question import answer_to
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, KubeError
from towpath.model.net import Addr

WITHIN = 30.0
_AT_ONCE = 16


NO_AGENT = "no Towpath agent has reported from it"


def with_agent(nodes: Iterable[Node]) -> list[str]:
    """Names of the nodes that an agent reports from, in order."""
    return sorted(node.metadata.name for node in nodes if agent_report(node) is not None)


async def ask(
    client: Client,
    nodes: Iterable[str],
    verb: Verb,
    *,
    addresses: Iterable[Addr] = (),
    leases: bool = False,
    force: bool = False,
) -> dict[str, Answer]:
    """Every node's answer; one that does not come has an ``error`` instead."""
    slots = asyncio.Semaphore(_AT_ONCE)
    wanted = tuple(map(str, addresses))

    async def one(node: str) -> Answer:
        question = Question(
            nonce=secrets.token_hex(8), verb=verb, addresses=wanted, leases=leases, force=force
        )
        async with slots:
            return await _ask_node(client, node, question)

    names = list(nodes)
    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


async def _ask_node(client: Client, node: str, question: Question) -> Answer:
    def read(found: Node) -> Answer | None:
        answer = answer_on(found)
        return answer if answer is not None and answer.nonce == question.nonce else None

    text = msgspec.json.encode(question).decode()
    try:
        answer = await answer_to(client, node, (QUESTION, ANSWER), text, read, WITHIN)
    except Forbidden as refused:
        return Answer(nonce="", error=f"it may not be asked, which takes the right to patch nodes: {refused}")
    except KubeError as failed:
        return Answer(nonce="", error=str(failed))
    return answer or Answer(
        nonce="", error=f"its agent did not answer within {WITHIN:.0f} s (see towpath status)"
    )


class Address(click.ParamType[Addr]):
    """An IP address on the command line."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Addr:
        """Or a usage error that names it."""
        try:
            return ip_address(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an IP address", param, ctx)
