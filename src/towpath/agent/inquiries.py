"""Answers what this node's kernel does with a flow: which elements and rules, and what they have counted."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Protocol

import msgspec

from towpath.agent.health import Page
from towpath.api.core import Node
from towpath.api.inquiry import ANSWER, MOST_FLOWS, Answer, Asked, Enforcement, Found, question_on
from towpath.desired.render import element
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.attachment import Attachment
from towpath.model.net import Addr
from towpath.model.nft import Key, NftChain, NftTable
from towpath.policy.evaluate import Flow
from towpath.policy.port_matches import PROTOCOLS
from towpath.policy.traced import Element, Hit, Untraceable, allows, lets_pass, trace, trace_host

log = get_logger("towpath.inquiries")

_LONGEST = 400
_NOT_YET = "policy is not in force on this node yet"


class Counters(Protocol):
    """What is asked of the kernel; ``LinuxKernel`` answers."""

    def counters(self, table: str, name: str) -> dict[Key, tuple[int, int]]: ...
    def rule_counters(self, table: str, chain: NftChain) -> list[tuple[int, int] | None]: ...


class Inquiries:
    """``table`` is what was last put in force, None before; the kernel is read under ``lock``. ``hosts``:
    this node's host endpoints by the interfaces they stand at.
    """

    def __init__(
        self,
        kernel: Counters,
        lock: asyncio.Lock,
        table: Callable[[], NftTable | None],
        attachments: Callable[[], Iterable[Attachment]],
        hosts: Callable[[], Mapping[str, str]],
    ) -> None:
        self._kernel, self._lock, self._table = kernel, lock, table
        self._attachments, self._hosts = attachments, hosts
        self._last = Answer(nonce="", flows=())

    async def annotations(self, node: Node | None) -> dict[str, str]:
        """The answer, for as long as its question stands on the own Node. It is worked out once."""
        question = question_on(node) if node is not None else None
        if question is None:
            return {}
        if question.nonce != self._last.nonce:
            flows = [await self.about(asked) for asked in question.flows[:MOST_FLOWS]]
            self._last = Answer(nonce=question.nonce, flows=tuple(flows))
            log.info("policy_question_answered", nonce=question.nonce, flows=len(flows))
        return {ANSWER: msgspec.json.encode(self._last).decode()}

    async def about(self, asked: Asked) -> Enforcement:
        """What the flow finds."""
        table = self._table()
        if table is None:
            return Enforcement(problem=_NOT_YET)
        try:
            flow = _flow(asked)
            if asked.host:
                return await self._about_host(table, asked, flow)
            own = flow.source if asked.direction == "egress" else flow.destination
            interface = self._interface(own)
            if not interface:
                return Enforcement(problem=f"no pod of this node has the address {own}")
            hits = trace(table, interface, asked.direction, flow)
            found = await self._counted(table, hits)
        except (ValueError, Untraceable, KernelRefused) as error:
            return Enforcement(problem=str(error))
        problem = "" if found else f"{interface} has no verdict yet, and so is denied"
        return Enforcement(allowed=allows(hits), hits=found, problem=problem)

    async def _about_host(self, table: NftTable, asked: Asked, flow: Flow) -> Enforcement:
        """Raises Untraceable, KernelRefused."""
        interface = next((device for device, name in self._hosts().items() if name == asked.host), "")
        if not interface:
            return Enforcement(problem=f"{asked.host} stands at no interface of this node")
        hits = trace_host(table, interface, asked.direction, asked.aspects, flow)
        found = await self._counted(table, hits)
        problem = "" if found else "no rule asks about it, and so it goes on"
        return Enforcement(allowed=lets_pass(hits), hits=found, problem=problem)

    async def _counted(self, table: NftTable, hits: Iterable[Hit]) -> tuple[Found, ...]:
        async with self._lock:
            return tuple(self._found(table, hit) for hit in hits)

    def _interface(self, own: Addr) -> str:
        return next((att.host_ifname for att in self._attachments() if own in att.addresses), "")

    def _found(self, table: NftTable, hit: Hit) -> Found:
        counted: tuple[int, int] | None
        if isinstance(hit, Element):
            decl = table.sets[hit.set]
            counted = self._kernel.counters(table.name, hit.set).get(hit.key) if decl.counter else None
            kind, name, text = "element", hit.set, element(decl, hit.key, hit.data)
        else:
            chain = NftChain(name=hit.chain, rules=(hit.text,))
            counted = next(iter(self._kernel.rule_counters(table.name, chain)), None)
            kind, name, text = "rule", hit.chain, hit.text
        packets, size = counted or (None, None)
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        return msgspec.convert(
            {"kind": kind, "name": name, "text": shown, "packets": packets, "bytes": size}, Found
        )

    async def page(self, query: Mapping[str, str]) -> Page:
        """``/policy?from=ADDRESS&to=ADDRESS&port=80/tcp``: both ends, as far as they are on this node."""
        try:
            port, _, protocol = query.get("port", "80").lower().partition("/")
            number = PROTOCOLS[(protocol or "tcp").upper()]
            flow = {
                "source": query["from"],
                "destination": query["to"],
                "protocol": number,
                "port": int(port),
            }
        except (KeyError, ValueError):
            return Page(400, "ask for /policy?from=ADDRESS&to=ADDRESS&port=NUMBER/tcp (or udp, sctp)\n")
        lines = []
        for direction in ("egress", "ingress"):
            answer = await self.about(msgspec.convert({"direction": direction, **flow}, Asked))
            lines.append(f"{direction}: {answer.problem}".rstrip(": ") if answer.problem else f"{direction}:")
            lines += [f"  {found}" for found in answer.hits]
        return Page(200, "\n".join(lines) + "\n")


def _flow(asked: Asked) -> Flow:
    return Flow(
        source=ip_address(asked.source),
        destination=ip_address(asked.destination),
        protocol=asked.protocol,
        destination_port=asked.port,
        icmp_type=asked.icmp_type,
        icmp_code=asked.icmp_code,
    )
