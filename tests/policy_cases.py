"""Policies, and who then reaches whom: cases chosen by hand, as data, for any implementation to be tried on.

The cluster of every case is three namespaces, x, y and z, with the label ``ns``, and in each three pods, a, b
and c, with the label ``pod``. All listen on 80 and 81 of TCP, UDP and SCTP, ports called ``serve-80-tcp`` and
so on. A case is one step or more; after each, what ``truth`` says must hold. A pod always reaches itself.

In manifests ``${z/c}`` stands for the network of that pod's address alone, ``${all}`` for that of all
addresses of its family: ``resolved``.
"""

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

Manifest = dict[str, Any]

NAMESPACES = {name: {"ns": name} for name in "xyz"}
PODS = {f"{namespace}/{name}": {"pod": name} for namespace in "xyz" for name in "abc"}
PORTS = tuple(f"{port}/{protocol}" for port in (80, 81) for protocol in ("tcp", "udp", "sctp"))

Allowed = tuple[str, str]
"""Peers and ports. Words are patterns; one that begins with ``!`` takes away: ``* !y/*``, ``80/* 81/tcp``."""


class Only(NamedTuple):
    """In this direction ``subjects`` are allowed any of ``allowed``, and nothing else."""

    direction: Literal["ingress", "egress"]
    subjects: str
    allowed: tuple[Allowed, ...]


class Step(NamedTuple):
    """What changes, and what then holds: all of ``expected``, and everything else is allowed.

    ``delete`` names objects as ``named`` does. ``labels`` are all those of a ``Pod x/a`` or ``Namespace x``
    from now on. ``create`` pods have the ports of the others.
    """

    expected: tuple[Only, ...]
    apply: tuple[Manifest, ...] = ()
    delete: tuple[str, ...] = ()
    labels: Mapping[str, Mapping[str, str]] = {}
    create: Mapping[str, Mapping[str, str]] = {}


class Case(NamedTuple):
    """``name`` is unique. ``api`` is what the cluster must have: kubernetes, admin or calico."""

    name: str
    api: Literal["kubernetes", "admin", "calico"]
    steps: tuple[Step, ...]


def into(subjects: str, *allowed: Allowed) -> Only:
    """Of ingress."""
    return Only("ingress", subjects, allowed)


def out_of(subjects: str, *allowed: Allowed) -> Only:
    """Of egress."""
    return Only("egress", subjects, allowed)


def chosen(patterns: str, names: Iterable[str]) -> set[str]:
    """The names that the words choose, in turn."""
    found: set[str] = set()
    every = set(names)
    for word in patterns.split():
        matching = {name for name in every if fnmatchcase(name, word.removeprefix("!"))}
        found = found - matching if word.startswith("!") else found | matching
    return found


def truth(expected: Iterable[Only], pods: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """The ports that each pod reaches on each other."""
    names = list(pods)
    table = {(source, to): set(PORTS) for source in names for to in names if source != to}
    for direction, subjects, allowed in expected:
        for subject in chosen(subjects, names):
            open_to: dict[str, set[str]] = {name: set() for name in names}
            for peers, ports in allowed:
                for peer in chosen(peers, names):
                    open_to[peer] |= chosen(ports, PORTS)
            for peer in names:
                if peer != subject:
                    pair = (peer, subject) if direction == "ingress" else (subject, peer)
                    table[pair] &= open_to[peer]
    return table


def named(manifest: Mapping[str, Any]) -> str:
    """``NetworkPolicy x/p``, ``Tier t``."""
    metadata = manifest["metadata"]
    place = f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else metadata["name"]
    return f"{manifest['kind']} {place}"


def resolved(manifest: Manifest, networks: Mapping[str, str]) -> Manifest:
    """With networks in place of their stand-ins; ``networks`` by pod, and ``all``."""
    text = json.dumps(manifest)
    for name, network in networks.items():
        text = text.replace(f"${{{name}}}", network)
    found: Manifest = json.loads(text)
    return found
