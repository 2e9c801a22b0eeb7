"""Which networks a pod gets beside the default one, and under which names. Pure.

As Multus chooses: cluster-wide networks first, then the pod's own; ``netN`` counts all of them, those with a
name of their own too; pods of system namespaces get no cluster-wide networks; with isolation a pod may use
networks of its own namespace and of global ones. Cluster-wide networks, and the one that takes the default's
place, are looked up in one namespace unless they name another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.multinet.annotation import DEFAULT_NETWORK, NETWORKS, Selection, default_network, selections
from towpath.multinet.confine import Confinement
from towpath.multinet.definition import Definition
from towpath.multinet.refusal import NetworkRefused

Lookup = Callable[[str, str], Definition]
"""By namespace and name. Raises NetworkRefused: TP6002 for what is unknown, TP6004, TP6008."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``namespace`` of cluster-wide networks; ``defaults`` which they are; the rest as in Multus's
    configuration: ``isolation`` (namespaceIsolation), ``global_namespaces``, ``system_namespaces``.
    """

    namespace: str = "kube-system"
    defaults: tuple[str, ...] = ()
    isolation: bool = False
    global_namespaces: tuple[str, ...] = ("default",)
    system_namespaces: tuple[str, ...] = ("kube-system",)
    confinement: Confinement = Confinement()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment to be made. ``general``: all pods get it."""

    selection: Selection
    definition: Definition
    ifname: str
    general: bool = False


class Choice(msgspec.Struct, frozen=True):
    """``instead`` takes the default network's place where there is one; ``beside`` in order."""

    instead: Wanted | None = None
    beside: tuple[Wanted, ...] = ()

    @property
    def all(self) -> tuple[Wanted, ...]:
        """In the order in which they are made."""
        return (*((self.instead,) if self.instead is not None else ()), *self.beside)


NONE = Choice()


def choose(
    namespace: str,
    annotations: Mapping[str, str],
    settings: NetworkSettings,
    lookup: Lookup,
    ifname: str = "eth0",
) -> Choice:
    """What a pod of ``namespace`` gets; its default interface is ``ifname``. Raises NetworkRefused."""
    asked = annotations.get(NETWORKS, "")
    override = annotations.get(DEFAULT_NETWORK, "")
    general = settings.defaults if namespace not in settings.system_namespaces else ()
    if not (asked or override or general):
        return NONE
    instead = None
    if (chosen := default_network(override)) is not None:
        chosen = replace(chosen, namespace=chosen.namespace or settings.namespace, interface="")
        instead = _wanted(chosen, ifname, settings, lookup)
    found = [_cluster_wide(name, settings) for name in general]
    found += asked_for(namespace, annotations, settings)
    names = [one.interface or f"net{number}" for number, one in enumerate(found, 1)]
    _check_names(names, ifname)
    beside = [
        _wanted(one, name, settings, lookup, general=number < len(general))
        for number, (one, name) in enumerate(zip(found, names, strict=True))
    ]
    _check_gateways(beside)
    return Choice(instead, tuple(beside))


def asked_for(
    namespace: str, annotations: Mapping[str, str], settings: NetworkSettings
) -> tuple[Selection, ...]:
    """What the annotation of a pod of ``namespace`` selects, each with the namespace it is looked up in.

    Raises NetworkRefused TP6001, TP6003, TP6005, TP6006.
    """
    found = []
    for selection in selections(annotations.get(NETWORKS, "")):
        own = replace(selection, namespace=selection.namespace or namespace)
        _check_namespace(own.namespace, namespace, settings)
        found.append(own)
    return tuple(found)


def added(
    wanted: Sequence[tuple[Selection, str]], settings: NetworkSettings, lookup: Lookup
) -> tuple[Wanted, ...]:
    """Attachments, each with its interface's name, that a running pod gets. Raises NetworkRefused."""
    found = [_wanted(selection, name, settings, lookup) for selection, name in wanted]
    _check_gateways(found)
    return tuple(found)


def cluster_wide(settings: NetworkSettings) -> tuple[tuple[str, str], ...]:
    """Namespace and name of every cluster-wide network. Raises NetworkRefused."""
    found = (_cluster_wide(name, settings) for name in settings.defaults)
    return tuple((one.namespace, one.name) for one in found)


def _cluster_wide(name: str, settings: NetworkSettings) -> Selection:
    one = selections(name, "setting network_defaults")[0]
    return replace(one, namespace=one.namespace or settings.namespace)


def _check_namespace(wanted: str, own: str, settings: NetworkSettings) -> None:
    if settings.isolation and wanted != own and wanted not in settings.global_namespaces:
        shared = ", ".join(settings.global_namespaces) or "none"
        raise NetworkRefused(
            "TP6003",
            NETWORKS,
            f"networks of namespace {wanted} are not for pods of {own}",
            f"use a network of {own}, or of a shared namespace ({shared}; setting network_global_namespaces)",
        )


def _check_names(names: list[str], ifname: str) -> None:
    seen = {ifname}
    for number, name in enumerate(names, 1):
        if name in seen:
            raise NetworkRefused(
                "TP6005",
                f"{NETWORKS}, network {number}",
                f"interface name {name} is taken by another network of the pod",
                "give each its own name; those without one are net1, net2, … by their place in the list",
            )
        seen.add(name)


def _check_gateways(beside: list[Wanted]) -> None:
    seen: dict[int, str] = {}
    for one in beside:
        for gateway in one.selection.gateways:
            if seen.setdefault(gateway.version, one.ifname) != one.ifname:
                raise NetworkRefused(
                    "TP6011",
                    f"{NETWORKS}, default-route",
                    f"both {seen[gateway.version]} and {one.ifname} are to have IPv{gateway.version}'s",
                    "keep one of them",
                )


def _wanted(
    selection: Selection, ifname: str, settings: NetworkSettings, lookup: Lookup, *, general: bool = False
) -> Wanted:
    definition = lookup(selection.namespace, selection.name)
    _check_capabilities(selection, definition)
    settings.confinement.check_paths(selection.cni_args, f"{NETWORKS}, cni-args")
    return Wanted(selection=selection, definition=definition, ifname=ifname, general=general)


def _check_capabilities(selection: Selection, definition: Definition) -> None:
    """The standard's rule. ``ips`` and ``mac`` also go other ways, and are verified afterwards."""
    asked: dict[str, Any] = {
        "portMappings": selection.port_mappings,
        "bandwidth": selection.bandwidth,
        "infinibandGUID": selection.infiniband_guid,
    }
    for capability, value in asked.items():
        if value and not definition.declares(capability):
            raise NetworkRefused(
                "TP6007",
                f"network {definition.reference}",
                f"the pod asks for {capability}, and no plugin of {', '.join(definition.types)} declares it",
                f'add "capabilities": {{"{capability}": true}} to a plugin that has it, or ask for less',
            )
