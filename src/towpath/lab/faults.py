"""Verbs that break a node's network: cut, heal, flush-rules, drop-route."""

import os
from contextlib import closing
from ipaddress import ip_network
from typing import Any

from towpath.kernel import nft_dump
from towpath.kernel.libnftables import NftContext, NftError
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.nft_socket import NftSocket
from towpath.kernel.port import KernelRefused
from towpath.kernel.wire import attributes, string
from towpath.lab import namespaces
from towpath.lab.conversation import Conversation, Verb
from towpath.lab.orders import node_netns
from towpath.lab.rundir import LabError
from towpath.model.net import Route
from towpath.model.op import Delete, SetLink, describe

_EVERY_FAMILY, _TABLE_NAME = bytes(4), 1
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}  # NFPROTO_*


def _enter(conversation: Conversation) -> str:
    """Move this process into the named node's network namespace."""
    name = str(conversation.argument("node"))
    fd = node_netns(name)
    namespaces.setns(fd, namespaces.CLONE_NEWNET)
    os.close(fd)
    return name


def _set_cable(conversation: Conversation, *, up: bool) -> dict[str, Any]:
    node = conversation.spec.node(str(conversation.argument("node")))
    try:
        LinuxKernel(nft=False).apply([SetLink(name=node.port, up=up)])
    except KernelRefused as refused:
        raise LabError(str(refused)) from refused
    return {"node": node.name, "link": "up" if up else "down"}


def cut(conversation: Conversation) -> dict[str, Any]:
    """Pull a node's cable: its eth0 loses carrier, and with it the API server and every other node."""
    return _set_cable(conversation, up=False)


def heal(conversation: Conversation) -> dict[str, Any]:
    """Put the cable back."""
    return _set_cable(conversation, up=True)


def flush_rules(conversation: Conversation) -> dict[str, Any]:
    """``nft flush ruleset`` on a node."""
    name = _enter(conversation)
    try:
        before = tables()
        with closing(NftContext()) as nft:
            nft.run("flush ruleset")
        kept = tables()
    except (NftError, KernelRefused, OSError) as refused:
        raise LabError(f"flush ruleset: {refused}") from refused
    return {"node": name, "tables": [table for table in before if table not in kept]}


def tables() -> list[str]:
    """Family and name of each table of this process's namespace. Raises KernelRefused, OSError.

    By netlink: libnftables' listing came out empty where an agent was putting its table back meanwhile.
    """
    with closing(NftSocket()) as socket:
        found = socket.dump(nft_dump.GET_TABLE, _EVERY_FAMILY)
    named = ((one[0], string(attributes(one, 4)[_TABLE_NAME])) for one in found)
    return [f"{_FAMILIES.get(family, family)} {name}" for family, name in named]


def drop_route(conversation: Conversation) -> dict[str, Any]:
    """Delete routes of a node: all to ``dst`` if given, else every route over the overlay's devices."""
    name = _enter(conversation)
    kernel = LinuxKernel(nft=False)
    routes = kernel.observe().routes
    wanted = conversation.arguments.get("dst")
    if wanted:
        try:
            network = ip_network(wanted)
        except ValueError as bad:
            raise LabError(f"drop-route: {bad}") from bad
        chosen = [route for route in routes if route.dst == network]
    else:
        chosen = [route for route in routes if _is_peer(route)]
    if not chosen:
        raise LabError(f"node {name} has no such route", f"see `towpath lab exec {name} -- ip route`")
    kernel.apply([Delete(item=route) for route in chosen])
    return {"node": name, "dropped": sorted(describe(route) for route in chosen)}


def _is_peer(route: Route) -> bool:
    """Routes to other nodes' pods: over the overlay, or (host-gw, DirectRouting) by way of the NIC."""
    return route.dev.startswith("flannel") or (route.via is not None and route.dst.prefixlen > 0)


VERBS: dict[str, Verb] = {"cut": cut, "heal": heal, "flush-rules": flush_rules, "drop-route": drop_route}
