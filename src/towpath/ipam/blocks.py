"""Calico's IPAMBlock as a value: its form in the API, and what may be done to it. Pure.

A block is a small CIDR whose addresses are handed out by changing one object (``crd.projectcalico.org/v1``
IPAMBlock; fields as in Calico's ``libcalico-go/lib/apis/v3/ipam_block.go``): ``allocations`` has, for each
address, the index of an entry of ``attributes`` (whose it is) or null; ``unallocated`` the free ones in the
order in which they are to be given, so that what was freed last comes last. Fields that are not known here
are kept as they are. Every change adds one to ``sequenceNumber``; two writers are kept apart by the object's
resourceVersion.
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.ipam.errors import BadBlock
from towpath.model.net import Addr, Net

Raw = dict[str, Any]
API = "crd.projectcalico.org/v1"
_HOST = "host:"
_LARGEST = 16  # host bits: 65 536 addresses in an object is far beyond what Calico makes


class Owner(msgspec.Struct, frozen=True):
    """Whose an address is: ``handle`` is the IPAMHandle that counts it, ``about`` says more (node, pod)."""

    handle: str
    about: Mapping[str, str] = {}
    more: Mapping[str, Any] = {}


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One block. ``node`` has affinity to it, empty where none has; ``affinity`` the same in Calico's words.

    ``version`` and ``uid`` are the object's, empty while it is not in the API; ``object`` the whole of it.
    """

    cidr: Net
    affinity: str = ""
    allocations: tuple[int | None, ...]
    free: tuple[int, ...]
    owners: tuple[Owner, ...] = ()
    sequence: int = 0
    sequences: Mapping[str, int] = {}
    deleted: bool = False
    version: str = ""
    uid: str = ""
    object: Mapping[str, Any] = {}

    @property
    def node(self) -> str:
        """The node with affinity to it."""
        return self.affinity.removeprefix(_HOST) if self.affinity.startswith(_HOST) else ""

    @property
    def empty(self) -> bool:
        """Whether none of its addresses is taken."""
        return all(index is None for index in self.allocations)

    def address(self, ordinal: int) -> Addr:
        """The address at a place of the block."""
        return self.cidr.network_address + ordinal

    def owner(self, address: Addr) -> Owner | None:
        """Whose it is; None: it is free. The address must be of the block."""
        index = self.allocations[int(address) - int(self.cidr.network_address)]
        return None if index is None else self.owners[index]

    def of(self, handle: str) -> tuple[Addr, ...]:
        """The addresses that a handle has, in order."""
        ours = {index for index, owner in enumerate(self.owners) if owner.handle == handle}
        return tuple(self.address(n) for n, index in enumerate(self.allocations) if index in ours)

    def room(self, skip: Callable[[Addr], bool]) -> tuple[Addr, ...]:
        """Its free addresses in the order in which they are to be given, but for those to be skipped."""
        return tuple(a for a in map(self.address, self.free) if not skip(a))


def block_name(cidr: Net) -> str:
    """The name of the object: the CIDR with dashes (Calico's ``names.CIDRToName``)."""
    return str(cidr).replace(".", "-").replace(":", "-").replace("/", "-")


def host_affinity(node: str) -> str:
    """A node's affinity in Calico's words."""
    return f"{_HOST}{node}"


def new_block(cidr: Net, node: str, sequence: int) -> Block:
    """A block that nobody has an address of. ``sequence`` must be higher than any of a block that was here
    before; Calico takes nanoseconds since 1970.
    """
    size = 1 << (cidr.max_prefixlen - cidr.prefixlen)
    return Block(
        cidr=cidr,
        affinity=host_affinity(node),
        allocations=(None,) * size,
        free=tuple(range(size)),
        sequence=sequence,
    )


def take(block: Block, addresses: Iterable[Addr], owner: Owner) -> Block:
    """The block with free addresses of it given to ``owner``. Raises BadBlock where one is not free."""
    wanted = [int(a) - int(block.cidr.network_address) for a in addresses]
    allocations, sequences = list(block.allocations), dict(block.sequences)
    owners = block.owners
    if owner not in owners:
        owners = (*owners, owner)
    index = owners.index(owner)
    for ordinal in wanted:
        if not 0 <= ordinal < len(allocations) or allocations[ordinal] is not None:
            raise BadBlock(block_name(block.cidr), f"{block.address(ordinal)} is not free")
        allocations[ordinal] = index
        sequences[str(ordinal)] = block.sequence
    gone = set(wanted)
    return replace(
        block,
        allocations=tuple(allocations),
        free=tuple(n for n in block.free if n not in gone),
        owners=owners,
        sequences=sequences,
        sequence=block.sequence + 1,
    )


def give(block: Block, addresses: Iterable[Addr], handle: str) -> Block:
    """The block with those of ``addresses`` that ``handle`` has free again, to be given out last.

    What is somebody else's stays (they were released already, and taken again).
    """
    base = int(block.cidr.network_address)
    allocations, sequences = list(block.allocations), dict(block.sequences)
    freed = []
    for address in addresses:
        ordinal = int(address) - base
        index = allocations[ordinal]
        if index is None or block.owners[index].handle != handle:
            continue
        allocations[ordinal] = None
        sequences.pop(str(ordinal), None)
        freed.append(ordinal)
    if not freed:
        return block
    used = sorted({index for index in allocations if index is not None})
    moved = {index: place for place, index in enumerate(used)}
    return replace(
        block,
        allocations=tuple(None if index is None else moved[index] for index in allocations),
        free=(*block.free, *freed),
        owners=tuple(block.owners[index] for index in used),
        sequences=sequences,
        sequence=block.sequence + 1,
    )


# The object in the API.


def read_block(obj: Mapping[str, Any]) -> Block:
    """A block from its object. Raises BadBlock where the object contradicts itself: nothing can be given out
    of a block of which it is not certain what is taken.
    """
    meta, spec = _mapping(obj, "metadata"), _mapping(obj, "spec")
    name = str(meta.get("name", ""))
    cidr = _cidr(name, spec.get("cidr"))
    size = 1 << (cidr.max_prefixlen - cidr.prefixlen)
    allocations, free = spec.get("allocations"), spec.get("unallocated")
    owners = tuple(_owner(name, one) for one in _list(name, spec, "attributes"))
    if not isinstance(allocations, list) or len(allocations) != size:
        raise BadBlock(name, f"spec.allocations must have {size} entries, one for each address of {cidr}")
    if not all(one is None or _is_index(one, len(owners)) for one in allocations):
        raise BadBlock(name, "spec.allocations has an entry that is not the index of one of spec.attributes")
    if not isinstance(free, list) or not all(_is_index(one, size) for one in free):
        raise BadBlock(name, f"spec.unallocated must be numbers from 0 to {size - 1}")
    if len(set(free)) != len(free) or set(free) != {n for n, one in enumerate(allocations) if one is None}:
        raise BadBlock(name, "spec.unallocated is not what spec.allocations leaves free")
    affinity = spec.get("affinity") or ""
    if not isinstance(affinity, str):
        raise BadBlock(name, "spec.affinity is no text")
    sequences = spec.get("sequenceNumberForAllocation") or {}
    sequence = spec.get("sequenceNumber") or 0
    if not isinstance(sequences, dict) or not isinstance(sequence, int):
        raise BadBlock(
            name, "spec.sequenceNumber is no number, or spec.sequenceNumberForAllocation no mapping"
        )
    return Block(
        cidr=cidr,
        affinity=affinity,
        allocations=tuple(allocations),
        free=tuple(free),
        owners=owners,
        sequence=sequence,
        sequences=sequences,
        deleted=spec.get("deleted") in (True, "true"),
        version=str(meta.get("resourceVersion", "")),
        uid=str(meta.get("uid", "")),
        object=obj,
    )


def write_block(block: Block) -> Raw:
    """The object to put into the API; what is not known of it is as it was."""
    spec = {
        **_mapping(block.object, "spec"),
        "cidr": str(block.cidr),
        "allocations": list(block.allocations),
        "unallocated": list(block.free),
        "attributes": [_attribute(owner) for owner in block.owners],
        "sequenceNumber": block.sequence,
        "sequenceNumberForAllocation": dict(block.sequences),
        "deleted": block.deleted,
    }
    spec.setdefault("strictAffinity", False)
    if block.affinity:
        spec["affinity"] = block.affinity
    else:
        spec.pop("affinity", None)
    meta = {**_mapping(block.object, "metadata"), "name": block_name(block.cidr)}
    return {**block.object, "apiVersion": API, "kind": "IPAMBlock", "metadata": meta, "spec": spec}


def _owner(name: str, one: Any) -> Owner:
    if not isinstance(one, dict):
        raise BadBlock(name, "spec.attributes has an entry that is no mapping")
    about = one.get("secondary") or {}
    if not isinstance(about, dict):
        raise BadBlock(name, "secondary of an entry of spec.attributes is no mapping")
    more = {key: value for key, value in one.items() if key not in ("handle_id", "secondary")}
    return Owner(str(one.get("handle_id") or ""), {str(k): str(v) for k, v in about.items()}, more)


def _attribute(owner: Owner) -> Raw:
    found: Raw = {**owner.more}
    if owner.handle:
        found["handle_id"] = owner.handle
    if owner.about:
        found["secondary"] = dict(owner.about)
    return found


def _cidr(name: str, text: Any) -> Net:
    try:
        cidr = ip_network(text) if isinstance(text, str) else None
    except ValueError as error:
        raise BadBlock(name, f"spec.cidr: {error}") from error
    if cidr is None:
        raise BadBlock(name, "spec.cidr is no text")
    if cidr.max_prefixlen - cidr.prefixlen > _LARGEST:
        raise BadBlock(name, f"spec.cidr {cidr} is larger than any block")
    if name != block_name(cidr):
        raise BadBlock(name, f"spec.cidr is {cidr}, whose block would be {block_name(cidr)}")
    return cidr


def _mapping(obj: Mapping[str, Any], key: str) -> Raw:
    found = obj.get(key)
    return found if isinstance(found, dict) else {}


def _list(name: str, spec: Raw, key: str) -> list[Any]:
    found = spec.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise BadBlock(name, f"spec.{key} is no list")
    return found


def _is_index(one: Any, size: int) -> bool:
    return isinstance(one, int) and not isinstance(one, bool) and 0 <= one < size
