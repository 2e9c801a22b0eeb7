"""The text of iptables-save and iptables-restore, as far as finding and removing rules needs it."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

_COMMENT = re.compile(r' --comment ("(?:[^"\\]|\\.)*"|\S+)')
_TARGET = re.compile(r" -(?:j|g) (\S+)")
_CHAIN = re.compile(r"^:(\S+) (\S+)")
_ESCAPED = re.compile(r"\\(.)")


class Rule(msgspec.Struct, frozen=True, dict=True):
    """One rule of ``chain``: ``text`` is the whole line as iptables-save prints it, ``-A CHAIN …``."""

    chain: str
    text: str

    @cached_property
    def comments(self) -> tuple[str, ...]:
        """Its comments, unquoted."""
        return tuple(_unquoted(found) for found in _COMMENT.findall(self.text))

    @cached_property
    def bare(self) -> str:
        """The rule without its comments, whose words could be taken for options."""
        return re.sub(r" -m comment(?= |$)", "", _COMMENT.sub("", self.text))

    @cached_property
    def target(self) -> str:
        """What it jumps or goes to, empty for none."""
        found = _TARGET.search(self.bare)
        return found[1] if found else ""

    @property
    def deletion(self) -> str:
        """The line of iptables-restore that deletes it."""
        return f"-D{self.text[2:]}"


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table: ``chains`` with their policy, "-" for those without a hook; ``rules`` in order."""

    name: str
    chains: dict[str, str] = {}
    rules: tuple[Rule, ...] = ()

    def of(self, chain: str) -> tuple[Rule, ...]:
        """The rules of one chain."""
        return tuple(rule for rule in self.rules if rule.chain == chain)


def parse_save(text: str) -> dict[str, Table]:
    """Tables by name. Counters and what nft cannot show as iptables rules ("# Table … is incompatible") are
    passed over.
    """
    tables: dict[str, Table] = {}
    name, chains, rules = "", dict[str, str](), list[Rule]()
    for line in text.splitlines():
        line = re.sub(r"^\[\d+:\d+\] ", "", line.strip())
        if line.startswith("*"):
            name, chains, rules = line[1:], {}, []
        elif (made := _CHAIN.match(line)) is not None:
            chains[made[1]] = made[2]
        elif line.startswith("-A "):
            rules.append(Rule(line.split(" ", 2)[1], line))
        elif line == "COMMIT":
            tables[name] = Table(name=name, chains=chains, rules=tuple(rules))
    return tables


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What goes from one table: single ``rules`` of chains that stay, and whole ``chains``."""

    table: str
    rules: tuple[Rule, ...] = ()
    chains: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.chains)


def restore_text(removals: Iterable[Removal]) -> str:
    """Input of ``iptables-restore --noflush``: hooks first, then the chains are emptied, then deleted.

    A table's changes take effect at once, whichever the backend.
    """
    lines: list[str] = []
    for removal in removals:
        if not removal:
            continue
        lines.append(f"*{removal.table}")
        # Naming a chain that exists empties it.
        lines += [f":{chain} - [0:0]" for chain in removal.chains]
        lines += [rule.deletion for rule in removal.rules]
        lines += [f"-X {chain}" for chain in removal.chains]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def closed(tables: Mapping[str, Table], chain: str) -> str:
    """Why ``chain`` of the filter table lets pass only what something before its end accepts; else empty."""
    table = tables.get("filter")
    if table is None:
        return ""
    if table.chains.get(chain) == "DROP":
        return f"policy of {chain} is DROP"
    for rule in table.of(chain):
        if rule.target in ("DROP", "REJECT") and re.fullmatch(
            rf"-A {chain} -j (DROP|REJECT)( --reject-with \S+)?", rule.bare
        ):
            return f"{chain} ends in {rule.target}"
    return ""


def _unquoted(found: str) -> str:
    return _ESCAPED.sub(r"\1", found[1:-1]) if found.startswith('"') else found
