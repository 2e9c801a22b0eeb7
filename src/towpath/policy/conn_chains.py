"""The chains that decide by protocol and port, shared by all verdicts that come to the same."""

import hashlib

from towpath.policy.conn_rules import GOTO_DENIED, RETURN, UNDECIDED, Logged, Outcome, Steps, rules_of
from towpath.policy.connections import ALL, NOTHING
from towpath.policy.live import LiveProgram


class _Chain:
    __slots__ = ("name", "then", "uses")

    def __init__(self, name: str, then: tuple[Outcome, ...]) -> None:
        self.name = name
        self.then = then
        self.uses = 0


class ConnectionChains:
    """Chains ``cs-HASH`` by what they decide. Each use is released once; ``sweep`` removes the idle.

    ``allowed``: what is done with connections that are, if that is not to go on behind the policies.
    """

    def __init__(self, program: LiveProgram, log_group: int, allowed: str = RETURN) -> None:
        self._allowed = allowed
        self._program = program
        self._log_group = log_group
        self._chains: dict[Outcome, _Chain] = {}
        self._idle: dict[Outcome, None] = {}

    def acquire(self, outcome: Outcome) -> str:
        """The verdict: ``return``, ``goto denied``, ``goto cs-…``."""
        if outcome not in (ALL, NOTHING, UNDECIDED):
            chain = self._chains.get(outcome)
            if chain is None:
                chain = self._chains[outcome] = self._make(outcome)
            chain.uses += 1
        return self.verdict(outcome)

    def verdict(self, outcome: Outcome) -> str:
        """That of an outcome in use."""
        if outcome == ALL:
            return self._allowed
        if outcome == UNDECIDED:
            return RETURN
        if outcome == NOTHING:
            return GOTO_DENIED
        return f"goto {self._chains[outcome].name}"

    def release(self, outcome: Outcome) -> None:
        """One use less."""
        chain = self._chains.get(outcome)
        if chain is not None:
            chain.uses -= 1
            if not chain.uses:
                self._idle[outcome] = None

    def sweep(self) -> None:
        """Whatever is of no use any more goes, with what only that led to."""
        while self._idle:
            outcome, _ = self._idle.popitem()
            chain = self._chains[outcome]
            if not chain.uses:
                del self._chains[outcome]
                self._program.set_chain(chain.name, None)
                for then in chain.then:
                    self.release(then)

    def _make(self, outcome: Outcome) -> _Chain:
        then = tuple(
            target
            for _, target in (outcome.rules if isinstance(outcome, Steps) else ())
            if not isinstance(target, Logged)
        )
        rules = rules_of(outcome, self.acquire, self._log_group, self._allowed)
        name = f"cs-{digest(*rules)}"
        while name in self._program.chains:
            name += "-"
        self._program.set_chain(name, rules)
        return _Chain(name, then)


def digest(*texts: str) -> str:
    """Names what has these texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
