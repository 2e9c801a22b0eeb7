"""Our nftables table: updates as transactions, listings as values."""

import re
from collections.abc import Sequence
from errno import EEXIST, EINVAL, EMSGSIZE, ENOENT, EOPNOTSUPP, EPERM

from msgspec.structs import replace

from towpath.kernel import nft_json
from towpath.kernel.libnftables import HANDLES, JSON, NUMERIC_PROTO, STATELESS, TERSE, NftContext, NftError
from towpath.kernel.nft_elements import ElementSocket, NotPlain, messages
from towpath.kernel.nft_text import Step, commands, comment_of, name
from towpath.kernel.port import KernelRefused
from towpath.model.nft import Key, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate

_ATTEMPTS = 4
_RULE_LINE = re.compile(r"^\t\t(?P<rule>.*?)(?: comment \"(?P<comment>[^\"]*)\")? # handle (?P<handle>\d+)$")
_HINTS = {
    EPERM: "nftables needs NET_ADMIN in the namespace's own user namespace",
    EEXIST: "an element with another value, or a set of another type, is there under this name",
    EOPNOTSUPP: "a chain cannot be moved to another hook or priority, or the kernel lacks an expression",
    EMSGSIZE: "a chain exceeds the socket's buffer: raise net.core.wmem_max, or spread the rules over chains",
}


class Nft:
    """Tables ``inet NAME`` of the namespace the calling thread is in when this is made.

    A rule cannot be read back as it was written: nft prints it in a form of its own. So each of our rules
    carries a comment, a hash of its text; and after each change of rules the table is listed, and for each
    rule is remembered what the kernel holds for its text. In a later listing a rule is given as its text only
    if comment *and* expressions are those; one that was edited, or that somebody else made, is given as nft
    prints it, and so differs from what is desired. A process that did not make the rules recognises those
    whose text is what nft prints.
    """

    def __init__(self) -> None:
        """Raises KernelRefused if libnftables is missing."""
        self._nft = NftContext()
        self._elements = ElementSocket()
        self._texts: dict[tuple[str, bytes], str] = {}

    def close(self) -> None:
        """Free the library's context."""
        self._elements.close()
        self._nft.close()

    def apply(self, update: NftUpdate) -> None:
        """Execute ``update``: one transaction, or several if it exceeds what the socket can take.

        That limit exists in unprivileged user namespaces only (some thousand elements, some hundred rules);
        then new sets and chains come first, unseen by any rule, then additions, then chains, each refilled at
        once, then removals. A recreation is never cut: half of it would let everything through. Raises
        KernelRefused.
        """
        if self._apply_elements(update):
            return
        for attempt in range(_ATTEMPTS):
            try:
                self._send(commands(update), whole=update.recreate)
                break
            except ValueError as error:
                raise KernelRefused(update.describe(), EINVAL, str(error)) from error
            except NftError as error:
                smaller = self._without_absent(update) if error.errno == ENOENT else update
                if smaller == update or attempt == _ATTEMPTS - 1:
                    op = f"nft {error.command}" if error.command else update.describe()
                    raise KernelRefused(op, error.errno, error.reason, _HINTS.get(error.errno, "")) from error
                update = smaller
        if any(chain.rules for chain in update.set_chains):
            self._learn(update)

    def _apply_elements(self, update: NftUpdate) -> bool:
        """The short way, for elements of hash sets; False if libnftables has to do it or to say why not."""
        try:
            return self._elements.execute(messages(update))
        except (NotPlain, OSError):
            return False

    def observe(self, table: str) -> NftTable | None:
        """Table ``inet TABLE``, None if there is none. Raises KernelRefused."""
        try:
            listed = self._list(table, 0)
            if listed is None:
                return None
            chains = {
                chain: NftChain(name=chain, hook=found.hook, rules=self._rules(table, found.rules))
                for chain, found in listed.chains.items()
            }
        except NftError as error:
            hint = _HINTS.get(error.errno, "")
            raise KernelRefused(f"list table inet {table}", error.errno, error.reason, hint) from error
        return NftTable(name=table, sets=listed.sets, chains=chains)

    def _send(self, steps: Sequence[Step], *, whole: bool = False) -> None:
        try:
            self._nft.run(*(command for step in steps for command in step))
        except NftError as error:
            if error.errno != EMSGSIZE or len(steps) < 2 or whole:
                raise
            half = len(steps) // 2
            self._send(steps[:half])
            self._send(steps[half:])

    def _list(self, table: str, more: int) -> nft_json.Listing | None:
        try:
            listing = self._nft.run(
                f"list table inet {name(table)}", flags=JSON | STATELESS | NUMERIC_PROTO | more
            )
        except NftError as error:
            if error.errno == ENOENT:
                return None
            raise
        return nft_json.decode(listing)

    def _without_absent(self, update: NftUpdate) -> NftUpdate:
        """``update`` less the removals of what is gone already: in 1.0.6 nft has no "destroy"."""
        listed = self._list(update.table, 0) or nft_json.Listing({}, {})
        dels: list[tuple[NftSet, dict[Key, Key]]] = []
        for decl, elements in update.del_elements:
            found = listed.sets.get(decl.name)
            if found is not None:
                dels.append((decl, {k: v for k, v in elements.items() if k in found.elements}))
        return replace(
            update,
            del_elements=tuple(dels),
            del_chains=tuple(chain for chain in update.del_chains if chain in listed.chains),
            del_sets=tuple(decl for decl in update.del_sets if decl in listed.sets),
        )

    def _learn(self, update: NftUpdate) -> None:
        """Remember what the kernel holds for the texts just written."""
        listed = self._list(update.table, TERSE)
        if listed is None:
            return
        for chain in update.set_chains:
            found = listed.chains.get(chain.name)
            if found is None or [r.comment for r in found.rules] != [comment_of(r) for r in chain.rules]:
                continue  # somebody was faster: what he did is not to be taken for ours
            for text, rule in zip(chain.rules, found.rules, strict=True):
                self._texts[rule.comment, rule.print] = text

    def _rules(self, table: str, rules: Sequence[nft_json.Rule]) -> tuple[str, ...]:
        """Our own text for the rules that are as we made them, nft's for others."""
        texts = [self._texts.get((rule.comment, rule.print)) for rule in rules]
        if None in texts:
            printed = self._printed(table)
            for place, rule in enumerate(rules):
                if texts[place] is None:
                    text, comment = printed.get(rule.handle, ("(gone while listing)", ""))
                    if comment == comment_of(text):
                        self._texts[rule.comment, rule.print] = text
                    elif comment:
                        text += f' comment "{comment}"'
                    texts[place] = text
        return tuple(text for text in texts if text is not None)

    def _printed(self, table: str) -> dict[int, tuple[str, str]]:
        """Text and comment of each rule as nft prints them, by handle."""
        listing = self._nft.run(f"list table inet {name(table)}", flags=STATELESS | TERSE | HANDLES).decode()
        matches = (_RULE_LINE.match(line) for line in listing.splitlines())
        return {int(m["handle"]): (m["rule"], m["comment"] or "") for m in matches if m is not None}
