"""A pod on each node that never changes, asked by all others all the time; and which losses have a reason.

Faults of cables, routes, rules and machines explain what fails on their node, from the fault to a grace after
its end. A killed agent, an API server that is down, and what happens to other pods explain nothing by
themselves; but damage done while the agent is dead is mended when the kubelet has started it again, and one
that was started while the server is down knows of no peers until it is back.
"""

import asyncio
import sys
import time
from typing import Any

import msgspec

from towpath.lab.client import LabClient
from towpath.lab.rundir import LabError

# Seconds after a fault's end until all must be well again: repair within one, a reboot until pods run again.
GRACE = {"cut": 5.0, "flush-rules": 3.0, "drop-route": 3.0, "reboot": 40.0}
_PORT, _PATIENCE = 5353, 3.0


class Loss(msgspec.Struct, frozen=True):
    """Nobody answered: from one node's pod to another's, at seconds since the start."""

    at: float
    source: str
    target: str
    error: str


class Watch:
    """``addresses`` are the anchors' by node; to be kept up to date by whoever can ask the API."""

    def __init__(self, lab: LabClient) -> None:
        self._lab, self._begun = lab, time.monotonic()
        self.addresses: dict[str, list[str]] = {}
        self.asked = 0
        self.explained = 0
        self.losses: list[Loss] = []
        self._excuses: list[tuple[str, float, float]] = []
        self._open: dict[str, float] = {}

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    def broken(self, node: str) -> None:
        """From now on losses of the node have a reason."""
        self._open[node] = self.now

    def mended(self, node: str, grace: float) -> None:
        """The fault is over, or was over at once."""
        self._excuses.append((node, self._open.pop(node, self.now), self.now + grace))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            begun = self.now
            await self._round()
            await asyncio.sleep(max(0.1, 0.5 - (self.now - begun)))

    async def _round(self) -> None:
        begun, known = self.now, dict(self.addresses)
        questions = []
        for node in known:
            others = [address for name in known if name != node for address in known[name]]
            to = [{"addr": address, "port": _PORT, "proto": "udp"} for address in others]
            questions.append({"from": {"pod": f"default/anchor-{node}"}, "to": to})
        for question in questions:
            await self._ask(question, begun, {a: n for n, all_of in known.items() for a in all_of})

    async def _ask(self, question: dict[str, Any], begun: float, owners: dict[str, str]) -> None:
        source = question["from"]["pod"].removeprefix("default/anchor-")
        try:
            (answer,) = await asyncio.to_thread(
                self._lab.call, "run-in", probes=[question], timeout=_PATIENCE
            )
        except LabError as error:
            answer = {"to": [{"addr": to["addr"], "ok": False, "error": str(error)} for to in question["to"]]}
        for result in answer["to"]:
            self.asked += 1
            if not result["ok"]:
                self._judge(Loss(begun, source, owners[result["addr"]], result["error"]))

    def _judge(self, loss: Loss) -> None:
        ends = {loss.source, loss.target}
        if ends & self._open.keys() or any(
            node in ends and begun - _PATIENCE <= self.now and loss.at <= end
            for node, begun, end in self._excuses
        ):
            self.explained += 1
        else:
            self.losses.append(loss)
            print(f"{self.now:7.1f} LOST {loss.source} → {loss.target} {loss.error}", file=sys.stderr)
