"""What chaos does, in which order: a function of the seed, so that a run can be had again."""

import random
from collections.abc import Iterator
from typing import Literal

import msgspec

Verb = Literal[
    "cut",
    "heal",
    "kill-agent",
    "flush-rules",
    "drop-route",
    "reboot",
    "api-down",
    "api-up",
    "scale",
    "delete-pod",
    "policy",
    "no-policy",
]
_WEIGHTS: dict[Verb, int] = {
    "cut": 2,
    "kill-agent": 4,
    "flush-rules": 3,
    "drop-route": 3,
    "reboot": 1,
    "api-down": 2,
    "scale": 5,
    "delete-pod": 4,
    "policy": 4,
    "no-policy": 2,
}
_ENDS: dict[Verb, Verb] = {"cut": "heal", "api-down": "api-up"}
MOST_PODS, POLICIES = 9, 4


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """``node`` for faults of nodes; ``number`` pods to scale to, a pod's place in the list, or a policy's
    number; ``pause`` seconds from it to the next one.
    """

    verb: Verb
    node: str = ""
    number: int = 0
    pause: float = 0.5


def actions(seed: int, nodes: list[str]) -> Iterator[Action]:
    """Without an end. Never two nodes broken at once, and no API objects change while the server is down.

    A node is cut for less than it takes to be declared lost: pods are to keep their addresses.
    """
    draw = random.Random(seed)
    verbs, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    while True:
        verb = draw.choices(verbs, weights)[0]
        node = draw.choice(nodes)
        if verb in _ENDS:
            for half in (verb, _ENDS[verb]):
                where = node if verb == "cut" else ""
                yield Action(verb=half, node=where, pause=draw.uniform(0.5, 3.0))
                if half == "api-down":
                    choices: tuple[Verb, ...] = ("kill-agent", "flush-rules", "drop-route")
                    local = draw.choice(choices)
                    yield Action(verb=local, node=node, pause=draw.uniform(0.5, 3.0))
            continue
        limit = {"scale": MOST_PODS, "delete-pod": MOST_PODS, "policy": POLICIES, "no-policy": POLICIES}
        number = draw.randrange(limit.get(verb, 1))
        of_node = verb in ("kill-agent", "flush-rules", "drop-route", "reboot")
        pause = draw.uniform(0.1, 2.0) + (6.0 if verb == "reboot" else 0.0)
        yield Action(verb=verb, node=node if of_node else "", number=number, pause=pause)
