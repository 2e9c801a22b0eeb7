"""Answers ``towpath ipam``: questions and orders on the own Node, each worked out once."""

import time
from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from towpath.agent.addresses import Addresses
from towpath.agent.garbage import Garbage
from towpath.api.core import Node
from towpath.api.ipam_inquiry import (
    ANSWER,
    MOST_LEASES,
    MOST_PROBLEMS,
    Answer,
    LeaseSeen,
    ProblemSeen,
    Question,
    RangeSeen,
    answer_on,
    question_on,
)
from towpath.cni.errors import CniError
from towpath.ipam.audit import Evidence, Problem, gone_here
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.usage import Usage
from towpath.log import get_logger
from towpath.model.net import Addr

log = get_logger("towpath.ipam")

_UNKNOWN = "nothing is known of that interface"


class IpamInquiries:
    """An order is carried out once: the answer that stands on the Node tells a new agent which one was."""

    def __init__(self, addresses: Addresses, garbage: Garbage) -> None:
        self._addresses, self._garbage = addresses, garbage
        self._last = Answer(nonce="")

    async def annotations(self, node: Node | None) -> dict[str, str]:
        """The answer, for as long as its question stands on the own Node."""
        question = question_on(node) if node is not None else None
        if node is None or question is None:
            return {}
        if question.nonce != self._last.nonce:
            before = answer_on(node)
            if before is None or before.nonce != question.nonce:
                before = await self.answer(question)
            self._last = before
        return {ANSWER: msgspec.json.encode(self._last).decode()}

    async def answer(self, question: Question) -> Answer:
        """What was asked, or done. A failure is part of the answer."""
        begun = time.monotonic()
        done: list[str] = []
        refused: list[str] = []
        try:
            if question.verb == "mend":
                done, refused = await self._addresses.mend()
            elif question.verb == "release":
                done, refused = await self._release(question)
            problems, evidence = await self._addresses.audit()
        except (CniError, LeaseStoreError) as error:
            return Answer(nonce=question.nonce, error=str(error), done=tuple(done), refused=tuple(refused))
        leases = list(self._leases(question, evidence))
        told = problems if question.verb in ("check", "mend") else ()
        log.info("ipam_question_answered", verb=question.verb, seconds=round(time.monotonic() - begun, 3))
        return Answer(
            nonce=question.nonce,
            ranges=tuple(map(_range, self._addresses.usage())),
            shared=tuple(map(_range, self._addresses.pools())),
            pools=tuple(map(str, self._addresses.networks)),
            namespaces=self._addresses.namespaces(),
            leases=tuple(leases[:MOST_LEASES]),
            problems=tuple(map(_seen, told[:MOST_PROBLEMS])),
            waiting=len(self._garbage.candidates),
            collected=self._garbage.collected,
            done=tuple(done[:MOST_PROBLEMS]),
            refused=tuple(refused[:MOST_PROBLEMS]),
            more=max(0, len(leases) - MOST_LEASES) + max(0, len(told) - MOST_PROBLEMS),
        )

    async def _release(self, question: Question) -> tuple[list[str], list[str]]:
        done: list[str] = []
        refused: list[str] = []
        for text in question.addresses:
            try:
                done.append(await self._addresses.release(ip_address(text), force=question.force))
            except (CniError, LeaseStoreError, ValueError) as error:
                refused.append(f"{text} {error}")
        return done, refused

    def _leases(self, question: Question, evidence: Evidence) -> Iterable[LeaseSeen]:
        wanted = _parsed(question.addresses)
        if not (question.leases or wanted):
            return
        for address, key, att in self._addresses.leases():
            if not question.leases and address not in wanted:
                continue
            if att is None:
                yield LeaseSeen(address=str(address), container=key[0], ifname=key[1], state=_UNKNOWN)
                continue
            here = gone_here(att, evidence.boot_id, evidence.links, unlisted=key in evidence.unlisted)
            over = evidence.over.get(key, "")
            yield LeaseSeen(
                address=str(address),
                container=key[0],
                ifname=key[1],
                pod=f"{att.pod.namespace}/{att.pod.name}" if att.pod is not None else "",
                link=att.host_ifname,
                state="; ".join(filter(None, (over, here))) or "in use",
            )


def _range(one: Usage) -> RangeSeen:
    return msgspec.convert(msgspec.structs.asdict(one), RangeSeen)


def _parsed(texts: Iterable[str]) -> frozenset[Addr]:
    found = set()
    for text in texts:
        try:
            found.add(ip_address(text))
        except ValueError:
            continue  # the command line has refused it; whoever else asks gets nothing
    return frozenset(found)


def _seen(problem: Problem) -> ProblemSeen:
    finding = problem.finding
    return ProblemSeen(
        code=finding.code,
        object=finding.object,
        message=finding.message,
        fix=finding.fix,
        severity=finding.severity,
        addresses=tuple(map(str, problem.addresses)),
        mendable=bool(problem.mend),
    )
