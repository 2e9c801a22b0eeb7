"""Calico's BlockAffinity, IPAMHandle and IPAMConfig as values (``libcalico-go/lib/apis/v3``). Pure.

An affinity says that a block is a node's; it is made before the block (``pending``), confirmed after it, and
``pendingDeletion`` while the block is given up. A handle counts, block by block, the addresses of one owner.
"""

import base64
import hashlib
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Literal, cast

import msgspec

from towpath.ipam.blocks import API, Raw, block_name
from towpath.ipam.errors import BadBlock
from towpath.model.net import Net

State = Literal["pending", "confirmed", "pendingDeletion"]
_STATES = ("pending", "confirmed", "pendingDeletion")
_LONGEST = 253
_HASHED = 11


class Affinity(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` and ``uid`` are the object's, empty while it is not in the API; ``object`` all of it."""

    node: str
    cidr: Net
    state: State = "pending"
    deleted: bool = False
    name: str = ""
    version: str = ""
    uid: str = ""
    object: Mapping[str, Any] = {}


class Handle(msgspec.Struct, frozen=True, kw_only=True):
    """How many addresses of each block (by CIDR) an owner has."""

    handle: str
    counts: Mapping[str, int] = {}
    deleted: bool = False
    version: str = ""
    uid: str = ""
    object: Mapping[str, Any] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """``strict``: a node gives out addresses of its own blocks only. ``claims``: nodes take blocks by
    themselves. ``most`` blocks a node; Calico's 0 means 20.
    """

    strict: bool = False
    claims: bool = True
    most: int = 20


def affinity_name(node: str, cidr: Net) -> str:
    """The object's name, cut and hashed where it would be too long for one, as Calico does it."""
    block = block_name(cidr)
    name = f"{node}-{block}"
    if len(name) < _LONGEST:
        return name
    cut = f"{node[: _LONGEST - 1 - len(block) - _HASHED - 2]}-{block}"
    return f"{cut}-{hashlib.sha256(f'{node}+{block}'.encode()).hexdigest()[:_HASHED]}"


def labels(node: str, cidr: Net) -> dict[str, str]:
    """By which newer releases of Calico list the affinities of a node (``EnsureBlockAffinityLabels``)."""
    digest = base64.b32encode(hashlib.sha3_256(node.encode()).digest()).decode().rstrip("=")
    return {
        "projectcalico.org/hostname-hash": digest,
        "projectcalico.org/affinity-type": "host",
        "projectcalico.org/ip-version": str(cidr.version),
    }


def read_affinity(obj: Mapping[str, Any]) -> Affinity:
    """An affinity from its object. Raises BadBlock."""
    meta, spec = _mapping(obj, "metadata"), _mapping(obj, "spec")
    name, node, state = str(meta.get("name", "")), spec.get("node"), spec.get("state")
    try:
        cidr = ip_network(str(spec.get("cidr")))
    except ValueError as error:
        raise BadBlock(name, f"spec.cidr: {error}") from error
    if not isinstance(node, str) or not node:
        raise BadBlock(name, "spec.node names no node")
    if state not in _STATES:
        raise BadBlock(name, f"spec.state must be one of {', '.join(_STATES)}, not {state!r}")
    return Affinity(
        node=node,
        cidr=cidr,
        state=cast(State, state),
        deleted=str(spec.get("deleted", "")).lower() == "true",
        name=name,
        version=str(meta.get("resourceVersion", "")),
        uid=str(meta.get("uid", "")),
        object=obj,
    )


def write_affinity(one: Affinity) -> Raw:
    """The object to put into the API. ``deleted`` is a text, as it has always been in Calico's."""
    meta = {**_mapping(one.object, "metadata"), "name": one.name or affinity_name(one.node, one.cidr)}
    meta["labels"] = {**_mapping(meta, "labels"), **labels(one.node, one.cidr)}
    spec = {
        **_mapping(one.object, "spec"),
        "node": one.node,
        "cidr": str(one.cidr),
        "state": one.state,
        "deleted": "true" if one.deleted else "false",
        "type": "host",
    }
    return {**one.object, "apiVersion": API, "kind": "BlockAffinity", "metadata": meta, "spec": spec}


def read_handle(obj: Mapping[str, Any]) -> Handle:
    """A handle from its object. Raises BadBlock."""
    meta, spec = _mapping(obj, "metadata"), _mapping(obj, "spec")
    name, handle, counts = str(meta.get("name", "")), spec.get("handleID"), spec.get("block") or {}
    if not isinstance(handle, str) or handle.lower() != name:
        raise BadBlock(name, f"spec.handleID {handle!r} is not what the object is named after")
    if not isinstance(counts, dict) or not all(isinstance(n, int) for n in counts.values()):
        raise BadBlock(name, "spec.block must have a number for each block")
    return Handle(
        handle=handle,
        counts=counts,
        deleted=spec.get("deleted") in (True, "true"),
        version=str(meta.get("resourceVersion", "")),
        uid=str(meta.get("uid", "")),
        object=obj,
    )


def write_handle(one: Handle) -> Raw:
    """The object to put into the API; its name is the handle in lower case."""
    meta = {**_mapping(one.object, "metadata"), "name": one.handle.lower()}
    spec = {
        **_mapping(one.object, "spec"),
        "handleID": one.handle,
        "block": dict(one.counts),
        "deleted": one.deleted,
    }
    return {**one.object, "apiVersion": API, "kind": "IPAMHandle", "metadata": meta, "spec": spec}


def read_config(obj: Mapping[str, Any] | None) -> Config:
    """The IPAMConfig ``default``; without one, Calico's defaults. Raises BadBlock."""
    if obj is None:
        return Config()
    spec = _mapping(obj, "spec")
    strict, claims = spec.get("strictAffinity", False), spec.get("autoAllocateBlocks", True)
    most = spec.get("maxBlocksPerHost", 0)
    if not isinstance(strict, bool) or not isinstance(claims, bool):
        raise BadBlock("default", "spec.strictAffinity and spec.autoAllocateBlocks must be true or false")
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise BadBlock("default", "spec.maxBlocksPerHost must be a number, 0 or more")
    return Config(strict=strict, claims=claims, most=most or 20)


def _mapping(obj: Mapping[str, Any], key: str) -> Raw:
    found = obj.get(key)
    return found if isinstance(found, dict) else {}
