"""What has to change for a running pod whose annotation has become another. Pure.

An attachment that is asked for as before stays as it is, under its name, wherever in the list its entry has
moved to: a running pod's interface is never renamed, and the definition it was made by may have changed or
gone meanwhile. What all pods get is no business of the annotation's and stays, too.
"""

from collections.abc import Container, Iterable, Sequence
from ipaddress import ip_address
from itertools import count

import msgspec

from towpath.multinet.annotation import Selection
from towpath.multinet.derive import wishes
from towpath.multinet.journal import Row
from towpath.multinet.refusal import NetworkRefused


class Changes(msgspec.Struct, frozen=True):
    """``detach`` comes first; ``attach`` each with its interface's name, in the order of the list."""

    detach: tuple[Row, ...] = ()
    attach: tuple[tuple[Selection, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.detach or self.attach)


def changes(rows: Sequence[Row], asked: Sequence[Selection], ifname: str) -> Changes:
    """``rows`` are the pod's attachments, ``asked`` what its annotation selects, ``ifname`` its default
    interface.

    What was begun and not finished, or could not be detached, is detached and made anew if it is asked for.
    A new interface without a name of its own is netN by its place, as at a pod's start; where that is taken,
    the first that is free. Raises NetworkRefused TP6005, TP6011.
    """
    fixed = [row for row in rows if row.general or row.instead]
    own = [row for row in rows if row not in fixed]
    whole = [row for row in own if row.done and not row.failures]
    kept, new = _matched(whole, asked, len([row for row in fixed if not row.instead]))
    _check_gateways(kept, new.values())
    names = {ifname, *(row.call.ifname for row in (*fixed, *kept))}
    named = [selection.interface for selection in new.values() if selection.interface]
    for number, name in enumerate(named):
        if name in names or name in named[:number]:
            raise NetworkRefused(
                "TP6005",
                f"interface name {name}",
                "it is taken by another network of the pod",
                "give each its own name; an attachment that is there keeps the one it has",
            )
    names.update(named)
    attach = []
    for place, selection in new.items():
        name = selection.interface or _free(place, names)
        names.add(name)
        attach.append((selection, name))
    return Changes(tuple(row for row in own if row not in kept), tuple(attach))


def _matched(
    rows: Sequence[Row], asked: Sequence[Selection], before: int
) -> tuple[list[Row], dict[int, Selection]]:
    """The rows that are asked for still, and by their place among a pod's networks the selections that have
    none. Names that are given go first, then places, then whatever is alike.
    """
    left, kept = list(rows), []
    new = dict(enumerate(asked, before + 1))
    for rule in (_by_name, _by_place, _by_likeness):
        for place, selection in list(new.items()):
            row = next((row for row in left if rule(row, selection, place) and _alike(row, selection)), None)
            if row is not None:
                left.remove(row)
                kept.append(row)
                del new[place]
    return kept, new


def _by_name(row: Row, selection: Selection, _: int) -> bool:
    return row.call.ifname == selection.interface


def _by_place(row: Row, selection: Selection, place: int) -> bool:
    return not selection.interface and row.call.ifname == f"net{place}"


def _by_likeness(_: Row, selection: Selection, __: int) -> bool:
    return not selection.interface


def _alike(row: Row, selection: Selection) -> bool:
    """Whether it is what is asked for; a device that was found for it is not asked for."""
    wanted, call = wishes(selection), row.call
    found = dict(call.runtime)
    if not wanted.device:
        found.pop("deviceID", None)
    return (
        row.reference == f"{selection.namespace}/{selection.name}"
        and found == wanted.runtime
        and call.cni_args == wanted.cni_args
        and wanted.device in ("", call.device)
        and row.gateways == tuple(map(str, selection.gateways))
    )


def _check_gateways(kept: Iterable[Row], new: Iterable[Selection]) -> None:
    """A pod has one default route a family; those of one selection, and of several new ones, are known to
    agree.
    """
    have = {ip_address(gateway).version: row.call.ifname for row in kept for gateway in row.gateways}
    for gateway in (gateway for selection in new for gateway in selection.gateways):
        if gateway.version in have:
            raise NetworkRefused(
                "TP6011",
                "default-route",
                f"{have[gateway.version]} has the pod's default route of IPv{gateway.version} already",
                "take that network out of the annotation first, or leave default-route out",
            )


def _free(place: int, taken: Container[str]) -> str:
    if f"net{place}" not in taken:
        return f"net{place}"
    return next(name for number in count(1) if (name := f"net{number}") not in taken)
