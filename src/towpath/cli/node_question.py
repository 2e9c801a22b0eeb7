"""Asking a node's agent by annotations of its Node, which needs no port open anywhere."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from towpath.api.core import Node
from towpath.kube.client import Client
from towpath.kube.kinds import NODES

ANSWER_WITHIN = 5.0
_ASK_EVERY = 0.05

T = TypeVar("T")


async def answer_to(
    client: Client,
    node: str,
    keys: tuple[str, str],
    question: str,
    read: Callable[[Node], T | None],
    within: float = ANSWER_WITHIN,
) -> T | None:
    """Put the question on the Node, wait, and take both off again; None after ``within`` seconds.

    ``keys`` are the annotations of question and answer; ``read`` finds the answer to this question. Somebody
    else's question may have come between: then it is put there once more. Raises KubeError.
    """
    deadline = asyncio.get_running_loop().time() + within
    standing = ""
    try:
        while asyncio.get_running_loop().time() < deadline:
            if standing != question:
                await _annotate(client, node, keys, question)
            found = await client.get(NODES, node)
            answer = read(found)
            if answer is not None:
                return answer
            standing = (found.metadata.annotations or {}).get(keys[0], "")
            await asyncio.sleep(_ASK_EVERY)
        return None
    finally:
        await _annotate(client, node, keys, None)


async def _annotate(client: Client, node: str, keys: tuple[str, str], question: str | None) -> None:
    notes = {keys[0]: question, keys[1]: None}
    await client.patch(NODES, node, {"metadata": {"annotations": notes}})
