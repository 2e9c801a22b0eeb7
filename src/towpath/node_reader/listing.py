"""nftables' own listing as tables of rules, whoever made them: iptables-nft, kube-proxy, flannel, Towpath.

Pure. The listing is that of ``nft -s -a list ruleset``: a rule a line, with its handle, without counters.
"""

import re

from towpath.migrate.iptables import Rule, Table

Key = tuple[str, str]  # family and name of a table: ("ip", "nat")
_TABLE = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN = re.compile(r"^\tchain (\S+) \{")
_HOOK = re.compile(r"^\t\ttype (\S+) hook (\S+) .*?(?:policy (\w+))?;$")
_HANDLE = re.compile(r" # handle (\d+)$")
_JUMP = re.compile(r"\b(?:jump|goto) (\S+)")
_IPTABLES = ("filter", "nat", "mangle", "raw")


def tables(listed: str) -> dict[Key, Table]:
    """Every table. The text of a rule is ``-A CHAIN EXPRESSION -j TARGET``, so that both kinds read alike."""
    found: dict[Key, Table] = {}
    key: Key = ("", "")
    chain, chains, rules = "", dict[str, str](), list[Rule]()
    for line in listed.splitlines():
        if (made := _TABLE.match(line)) is not None:
            key, chains, rules = (made[1], made[2]), {}, []
        elif line.startswith("}"):
            found[key] = Table(name=key[1], chains=chains, rules=tuple(rules))
        elif (made := _CHAIN.match(line)) is not None:
            chain = made[1]
            chains[chain] = "-"
        elif line.startswith("\t}"):
            chain = ""
        elif chain and (hook := _HOOK.match(_HANDLE.sub("", line))) is not None:
            chains[chain] = (hook[3] or "accept").upper()
        elif chain and line.startswith("\t\t"):
            rules.append(_rule(chain, line))
    return found


def _rule(chain: str, line: str) -> Rule:
    text = " ".join(_HANDLE.sub("", line).split())
    plain = re.sub(r'comment "[^"]*"', "", text)
    target = next((f" -j {found}" for found in (_target(plain),) if found), "")
    comment = re.search(r'comment ("[^"]*")', text)
    said = f" -m comment --comment {comment[1]}" if comment else ""
    return Rule(chain, f"-A {chain} {plain.replace(' counter', '').strip()}{said}{target}")


def _target(plain: str) -> str:
    if (jump := _JUMP.search(plain)) is not None:
        return jump[1]
    words = plain.replace('"', "").lower().split()
    for word in ("masquerade", "return", "accept", "drop", "reject"):
        if word in words:
            return word.upper()
    return ""


def hooks(listed: str) -> dict[tuple[Key, str], tuple[str, str]]:
    """Chains that hang in a hook: table and chain to type and hook."""
    found = {}
    key, chain = ("", ""), ""
    for line in listed.splitlines():
        if (made := _TABLE.match(line)) is not None:
            key = (made[1], made[2])
        elif (made := _CHAIN.match(line)) is not None:
            chain = made[1]
        elif (hook := _HOOK.match(_HANDLE.sub("", line))) is not None:
            found[key, chain] = (hook[1], hook[2])
    return found


def is_iptables(key: Key) -> bool:
    """Whether iptables-nft uses a table of this name."""
    return key[0] in ("ip", "ip6") and key[1] in _IPTABLES


def fingerprints(listed: str) -> dict[str, int]:
    """A number for each chain that changes whenever one of its rules is made anew (handles count)."""
    found: dict[str, list[str]] = {}
    name, table = "", ""
    for line in listed.splitlines():
        if (made := _TABLE.match(line)) is not None:
            table = f"{made[1]} {made[2]}"
        elif (made := _CHAIN.match(line)) is not None:
            name = f"{table} {made[1]}"
            found[name] = []
        elif line.startswith("\t}"):
            name = ""
        elif name:
            found[name].append(line)
    return {chain: hash(tuple(lines)) for chain, lines in found.items()}
