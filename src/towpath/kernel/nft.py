"""Our nftables table: updates as transactions, listings as values."""

import contextlib
import os
import re
from collections.abc import Sequence
from errno import EEXIST, EINVAL, EMSGSIZE, ENFILE, ENOENT, ENOMEM, ENOSPC, EOPNOTSUPP, EPERM
from functools import partial
from socket import socket

from msgspec.structs import replace

from towpath.kernel import nft_dump, nft_owner, nft_removal
from towpath.kernel.libnftables import HANDLES, STATELESS, TERSE, NftContext, NftError
from towpath.kernel.nft_elements import messages
from towpath.kernel.nft_known import Known, listed_key
from towpath.kernel.nft_rules import plain
from towpath.kernel.nft_socket import NftSocket, Refused
from towpath.kernel.nft_steps import split
from towpath.kernel.nft_text import Step, commands, comment_of
from towpath.kernel.nft_types import NotPlain
from towpath.kernel.port import KernelRefused
from towpath.model.nft import Key, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate

_ATTEMPTS = 4
_LISTINGS = 10
# Chains changed at once whose rules are asked for one chain at a time rather than all together.
_FEW = 20
_TABLE_LINE = re.compile(r"^table inet (?P<table>\S+) \{")
_RULE_LINE = re.compile(r"^\t\t(?P<rule>.*?)(?: comment \"(?P<comment>[^\"]*)\")? # handle (?P<handle>\d+)$")
# Behind the name of a table's double (``Nft._replace``).
_DOUBLE = "_next"
_HINTS = {
    EPERM: "it takes NET_ADMIN in the namespace's own user namespace, and a table that nobody else owns",
    EEXIST: "an element with another value, or a set of another type, is there under this name",
    EOPNOTSUPP: "a chain cannot be moved to another hook or priority, or the kernel lacks an expression",
    ENFILE: "a set is full: somebody made it with a size; delete the table, and the agent makes its own",
    ENOSPC: "a set is full, or the kernel's memory for it: see `nft list table inet towpath` and dmesg",
    ENOMEM: "the kernel has no memory left for rules; it is tried again",
    EMSGSIZE: "a chain exceeds the socket's buffer: raise net.core.wmem_max, or spread the rules over chains",
}


class Nft:
    """Tables ``inet NAME`` of the namespace the calling thread is in when this is made, or of that in which
    ``handed`` were opened: two sockets of nftables, which are closed by ``close``.

    A rule cannot be read back as it was written: nft prints it in a form of its own. So each of our rules
    carries a comment, a hash of its text; and after each change of rules it is remembered what expressions
    the kernel made of each text. A rule is given as its text only if comment *and* expressions are those; one
    that was edited, or that somebody else made, is given as nft prints it, and so differs from what is
    desired. A process that did not make the rules recognises those whose text is what nft prints.
    """

    def __init__(self, handed: tuple[socket, socket] | None = None) -> None:
        """Raises KernelRefused if libnftables is missing, OSError."""
        changing, asking = handed or (None, None)
        self._nft = NftContext(changing)
        self._socket = NftSocket(self._nft.descriptor, asking)
        if changing is not None:
            changing.close()
        self._known = Known()
        self._owned = ""
        # By the table's handle and the rule's print.
        self._texts: dict[tuple[int, bytes], str] = {}

    def close(self) -> None:
        """Free the library's context and the sockets."""
        self._socket.close()
        self._nft.close()

    def apply(self, update: NftUpdate) -> None:
        """Execute ``update``: one transaction, or several where nobody can tell (``nft_steps.split``).

        It takes several as well if it exceeds what the socket can take. That limit exists in unprivileged
        user namespaces only (some thousand elements, some hundred rules); then new sets and chains come
        first, unseen by any rule, then additions, then chains, each refilled at once, then removals. A
        recreation is never cut: half of it would let everything through. Raises KernelRefused.
        """
        if update.own and update.recreate:
            self._replace(update)
            return
        transactions = self._take(update) if update.own else 0
        self._change(replace(update, own=False), transactions)

    def amend(self, update: NftUpdate) -> bool:
        """As ``apply``, if the table is surely as it was last left or seen here: the ruleset's generation
        says so, or nobody else can change it. Else nothing is done, and False said. Raises KernelRefused.
        """
        if update.table != self._owned and not self._known.at(update.table, self._socket.generation()):
            return False
        self._change(update, 0)
        return True

    def _change(self, update: NftUpdate, before: int) -> None:
        """Execute an update that is not about the owner; ``before`` transactions belong to it already."""
        transactions = 0
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            errno, transactions = self._straight(update)
            if errno == 0:
                break
            if errno == ENOENT and not last and (smaller := self._without_absent(update)) != update:
                update = smaller
                continue
            try:
                transactions = self._send(self._commands(update), whole=update.recreate)
                break
            except ValueError as error:
                raise KernelRefused(update.describe(), EINVAL, str(error)) from error
            except NftError as error:
                smaller = self._without_absent(update) if error.errno == ENOENT else update
                if smaller == update or last:
                    op = f"nft {error.command}" if error.command else update.describe()
                    raise KernelRefused(op, error.errno, error.reason, _HINTS.get(error.errno, "")) from error
                update = smaller
        self._learn(update)
        if before:
            self._owned = update.table
        moved = replace(update, own=before > 0)
        self._known.moved(moved, before + transactions, self._socket.generation())

    def observe(self, table: str) -> NftTable | None:
        """Table ``inet TABLE``, None if there is none. Raises KernelRefused."""
        for left in reversed(range(_LISTINGS)):
            generation = self._socket.generation()
            if self._known.at(table, generation):
                break
            try:
                found = self._listed(table)
            except (KernelRefused, NftError) as error:
                if error.errno == ENOENT and left:
                    continue  # what was to be listed next has gone
                raise _not_listed(table, error.errno, error.reason) from error
            unchanged = self._socket.generation() == generation
            self._known.seen(table, found, generation if unchanged else -1)
            if unchanged:
                break
        # If somebody changes some table all the time, a half-seen one is put right at the next look.
        return self._known.table()

    def counters(self, table: str, name: str) -> dict[Key, tuple[int, int]]:
        """Packets and bytes that found each element of a set that counts them. Raises KernelRefused."""
        found = {decl.name: decl for decl in nft_dump.sets(self._dump(nft_dump.GET_SET, table), table)}
        if name not in found:
            raise _not_listed(table, ENOENT, f"there is no set {name}")
        return nft_dump.counters(found[name], self._elements(table, name))

    def remaining(self, table: str, decl: NftSet) -> dict[Key, int]:
        """The elements of a set with timeouts, and the milliseconds each has left. Raises KernelRefused."""
        try:
            return nft_dump.remaining(decl, self._elements(table, decl.name))
        except KernelRefused as error:
            if error.errno == ENOENT:
                return {}
            raise

    def _take(self, update: NftUpdate) -> int:
        """Become the owner of the table, which is made if it is not there. Raises KernelRefused."""
        try:
            return self._socket.execute([[nft_owner.take(update.table)]])
        except (Refused, OSError) as error:
            number = error.errno or 0
            found = self._tables().get(update.table)
            whose = f"port {found.port} (mostly its process' ID) owns it" if found is not None else ""
            told = f"{os.strerror(number)}{f': {whose}' if number == EPERM else ''}"
            raise KernelRefused(update.describe(), number, told, _HINTS.get(number, "")) from error

    def _replace(self, update: NftUpdate) -> None:
        """Make the table anew and own it, which one transaction of libnftables' cannot do.

        Its double is in force first, so that no packet ever meets less than one of them; whoever dies on the
        way leaves both, and the next one does it all again. Counters are lost. Raises KernelRefused.
        """
        double, fresh = update.table + _DOUBLE, replace(update, recreate=False, own=False)
        listed = self._tables()
        self._change(replace(fresh, table=double, recreate=double in listed), 0)
        step = [nft_owner.remove(update.table)] if update.table in listed else []
        try:
            nft_removal.unhook(self._socket, ("inet", update.table))
            self._socket.execute([[*step, nft_owner.take(update.table)]])
            self._change(fresh, 0)
            nft_removal.remove(self._socket, ("inet", double))
        except (Refused, OSError) as error:
            number = error.errno or 0
            raise KernelRefused(
                update.describe(), number, os.strerror(number), _HINTS.get(number, "")
            ) from error

    def _commands(self, update: NftUpdate) -> list[Step]:
        listed = self._tables()
        double = update.table + _DOUBLE
        also = [(f"delete table inet {double}",)] if update.recreate and double in listed else []
        return [*commands(update, present=update.table in listed), *also]

    def rule_counters(self, table: str, chain: NftChain) -> list[tuple[int, int] | None]:
        """Packets and bytes of each rule of ``chain``; None for one that counts nothing, or that the kernel
        does not hold. Raises KernelRefused.
        """
        listing = self._dump(nft_dump.GET_RULE, table, chain.name)
        found = dict(nft_dump.rule_counters(listing, table, chain.name))
        return [found.get(comment_of(text)) for text in chain.rules]

    def _straight(self, update: NftUpdate) -> tuple[int, int]:
        """Without libnftables, as far as possible: an error (0: done), and how many transactions it took.

        EINVAL: libnftables has to do it, or to say why not.
        """
        declares = bool(update.add_sets or update.add_chains or update.set_chains or update.recreate)
        nothing = NftUpdate(table=update.table)
        try:
            parts = split(update, plain) if declares else None
            if parts is None and declares:
                return EINVAL, 0
            before, elements, after = parts or (nothing, update, nothing)
            steps = messages(elements)
            transactions = self._send(self._commands(before)) if before != nothing else 0
            try:
                transactions += self._socket.execute(steps)
            except (Refused, OSError):
                self._undo(before)
                raise
            transactions += self._send(self._commands(after)) if after != nothing else 0
        except Refused as refused:
            return refused.errno, 0
        except (NotPlain, NftError, ValueError, OSError, KernelRefused):
            return EINVAL, 0
        return 0, transactions

    def _undo(self, declared: NftUpdate) -> None:
        """Remove what nothing refers to."""
        chains, sets = (chain for chain, _ in declared.add_chains), (decl.name for decl in declared.add_sets)
        undo = NftUpdate(table=declared.table, del_chains=tuple(chains), del_sets=tuple(sets))
        with contextlib.suppress(Refused, NotPlain, OSError):
            self._socket.execute(messages(undo))

    def _send(self, steps: Sequence[Step], *, whole: bool = False) -> int:
        """Through libnftables; returns how many transactions it took."""
        if not steps:
            return 0
        try:
            self._nft.run(*(command for step in steps for command in step))
        except NftError as error:
            if error.errno != EMSGSIZE or len(steps) < 2 or whole:
                raise
            half = len(steps) // 2
            return self._send(steps[:half]) + self._send(steps[half:])
        return 1

    def _without_absent(self, update: NftUpdate) -> NftUpdate:
        """``update`` less the removals of what is gone already: in 1.0.6 nft has no "destroy"."""
        listed = self.observe(update.table) or NftTable(name=update.table)
        dels: list[tuple[NftSet, dict[Key, Key]]] = []
        for decl, elements in update.del_elements:
            found = listed.sets.get(decl.name)
            if found is not None:
                listed_elements = found.elements
                if decl.timeout:
                    listed_elements = nft_dump.elements(decl, self._elements(update.table, decl.name))
                there = {k: v for k, v in elements.items() if listed_key(decl, k) in listed_elements}
                dels.append((decl, there))
        return replace(
            update,
            del_elements=tuple(dels),
            del_chains=tuple(chain for chain in update.del_chains if chain in listed.chains),
            del_sets=tuple(decl for decl in update.del_sets if decl in listed.sets),
        )

    def _listed(self, table: str) -> NftTable | None:
        tables = self._tables()
        doubled = table + _DOUBLE in tables
        if table not in tables:
            return NftTable(name=table, doubled=True) if doubled else None
        handle, owner, _ = tables[table]
        chains = {
            c.name: c for c in nft_dump.chains(self._socket.dump(nft_dump.GET_CHAIN, nft_dump.INET), table)
        }
        declared = self._dump(nft_dump.GET_SET, table)
        anonymous = nft_dump.anonymous_sets(declared, table)
        rules = list(nft_dump.rules(self._dump(nft_dump.GET_RULE, table), table, anonymous))
        texts: dict[str, list[str]] = {chain: [] for chain in chains}
        for rule, text in zip(rules, self._told(table, handle, rules), strict=True):
            texts.setdefault(rule.chain, []).append(text)
        sets = {}
        for decl in nft_dump.sets(declared, table):
            if decl.timeout:
                sets[decl.name] = decl
                continue
            dump = self._elements(table, decl.name)
            decode = partial(nft_dump.elements, decl, dump)
            known = self._known.elements(decl, nft_dump.digest(dump), decode)
            sets[decl.name] = replace(decl, elements=known)
        return NftTable(
            name=table,
            owner=owner,
            doubled=doubled,
            sets=sets,
            chains={
                name: NftChain(name=name, hook=chain.hook, rules=tuple(texts[name]))
                for name, chain in chains.items()
            },
        )

    def _told(self, table: str, handle: int, rules: list[nft_dump.Rule]) -> list[str]:
        """Our own text for the rules that are as we made them, nft's for others."""
        keys = [(handle, rule.print) for rule in rules]
        if any(key not in self._texts for key in keys):
            printed = self._printed(table)
            for key, rule in zip(keys, rules, strict=True):
                if rule.handle in printed:
                    self._texts.setdefault(key, printed[rule.handle])
        told = {key: self._texts.get(key, "(gone while listing)") for key in keys}
        self._texts = {key: text for key, text in self._texts.items() if key[0] != handle or key in told}
        return [told[key] for key in keys]

    def _learn(self, update: NftUpdate) -> None:
        """Remember what the kernel has made of the texts just written."""
        written = [chain for chain in update.set_chains if chain.rules]
        if not written or (found := self._tables().get(update.table)) is None:
            return
        handle = found.handle
        anonymous = nft_dump.anonymous_sets(self._dump(nft_dump.GET_SET, update.table), update.table)
        rules_of: dict[str, list[nft_dump.Rule]] = {}
        for chain in [chain.name for chain in written] if len(written) <= _FEW else [""]:
            listing = self._dump(nft_dump.GET_RULE, update.table, chain)
            for rule in nft_dump.rules(listing, update.table, anonymous):
                rules_of.setdefault(rule.chain, []).append(rule)
        for changed in written:
            rules = rules_of.get(changed.name, [])
            if [rule.comment for rule in rules] != [comment_of(text) for text in changed.rules]:
                continue  # somebody was faster: what he did is not to be taken for ours
            for text, rule in zip(changed.rules, rules, strict=True):
                self._texts[handle, rule.print] = text

    def _printed(self, table: str) -> dict[int, str]:
        """Each rule as nft prints it, by handle; without its comment if that is ours.

        All tables are listed: of a single one nft would fetch all elements, if only to leave them out.
        """
        listing = self._nft.run("list ruleset inet", flags=STATELESS | TERSE | HANDLES).decode()
        printed: dict[int, str] = {}
        inside = False
        for line in listing.splitlines():
            if (begins := _TABLE_LINE.match(line)) is not None:
                inside = begins["table"] == table
            elif inside and (m := _RULE_LINE.match(line)) is not None:
                text, comment = m["rule"], m["comment"] or ""
                ours = not comment or comment == comment_of(text)
                printed[int(m["handle"])] = text if ours else f'{text} comment "{comment}"'
        return printed

    def _tables(self) -> dict[str, nft_owner.Listed]:
        return nft_owner.listed(self._socket.dump(nft_dump.GET_TABLE, nft_dump.INET), self._socket.port)

    def _dump(self, kind: int, table: str, chain: str = "") -> list[bytes]:
        return self._socket.dump(kind, nft_dump.of_table(table, chain))

    def _elements(self, table: str, name: str) -> list[bytes]:
        return self._socket.dump(nft_dump.GET_ELEMENTS, nft_dump.of_set(table, name))


def _not_listed(table: str, errno: int, reason: str) -> KernelRefused:
    return KernelRefused(f"list table inet {table}", errno, reason, _HINTS.get(errno, ""))
