"""Verbs that break a node's network: cut, heal, flush-rules, drop-route."""

import os
from ipaddress import ip_network
from typing import Any

import msgspec

from towpath.kernel.libnftables import JSON, NftContext, NftError
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.port import KernelRefused
from towpath.lab import namespaces
from towpath.lab.conversation import Conversation, Verb
from towpath.lab.orders import node_netns
from towpath.lab.rundir import LabError
from towpath.model.net import Route
from towpath.model.op import Delete, SetLink, describe


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
    nft = NftContext()
    try:
        before = _tables(nft)
        nft.run("flush ruleset")
        kept = _tables(nft)
    except NftError as refused:
        raise LabError(f"flush ruleset: {refused}") from refused
    return {"node": name, "tables": [table for table in before if table not in kept]}


def _tables(nft: NftContext) -> list[str]:
    """Family and name of each table of this process's namespace."""
    items = msgspec.json.decode(nft.run("list tables", flags=JSON))["nftables"]
    return [f"{item['table']['family']} {item['table']['name']}" for item in items if "table" in item]


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
