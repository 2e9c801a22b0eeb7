"""A stand-in for ``calico-node -felix``: rules for the node's pods, from the API, and nothing removed on
exit.

Of policies it knows NetworkPolicies: ingress by namespace, the labels' equality and numbered ports, egress by
blocks of addresses and numbered ports; whatever else a policy says it takes for "nobody". It looks at the API
four times a second where Felix watches.
"""

import argparse
import asyncio
import signal
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from towpath.desired.names import host_ifname
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import PODS, Kind, Raw
from towpath.lab.canal import rules
from towpath.lab.canal.felix_rules import Endpoint, Port, Way

POLICIES: Kind[Raw] = Kind(plural="networkpolicies", type=dict, group="networking.k8s.io")
_POLL_SECONDS = 0.25
_REFRESH_SECONDS = 60.0


def endpoints(node: str, pods: Iterable[Raw], policies: Iterable[Raw]) -> tuple[Endpoint, ...]:
    """This node's pods that have addresses, with who may speak to them. Pure."""
    everyone, all_policies = list(pods), list(policies)
    found = []
    for pod in everyone:
        spec, meta = pod.get("spec") or {}, pod["metadata"]
        mine = _addresses(pod)
        if spec.get("nodeName") != node or spec.get("hostNetwork") or not mine:
            continue
        dev = host_ifname(meta["namespace"], meta["name"])
        applied = _applied(pod, all_policies)
        found.append(
            Endpoint(
                dev=dev,
                addresses=mine,
                sources=_sources(pod, everyone, applied),
                ports=_open(applied),
                ways=_ways(applied),
            )
        )
    return tuple(sorted(found, key=lambda endpoint: endpoint.dev))


def _addresses(pod: Raw) -> tuple[str, ...]:
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return ()
    return tuple(entry["ip"] for entry in status.get("podIPs") or ())


def _applied(pod: Raw, policies: list[Raw]) -> list[Raw]:
    """What the policies that select a pod say."""
    space = pod["metadata"]["namespace"]
    return [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == space and _selects(policy["spec"].get("podSelector") or {}, pod)
    ]


def _closes(spec: Raw, way: str) -> bool:
    given = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    return way in given


def _open(applied: list[Raw]) -> tuple[Port, ...]:
    """Ports that everybody may ask: rules that name numbers and no peers."""
    rules = [rule for spec in applied for rule in spec.get("ingress") or () if not rule.get("from")]
    return tuple(sorted({port for rule in rules for port in _ports(rule)}))


def _ways(applied: list[Raw]) -> tuple[Way, ...] | None:
    closing = [spec for spec in applied if _closes(spec, "Egress")]
    if not closing:
        return None
    found = []
    for rule in (rule for spec in closing for rule in spec.get("egress") or ()):
        blocks = [peer["ipBlock"] for peer in rule.get("to") or () if "ipBlock" in peer]
        excepted = tuple(net for block in blocks for net in block.get("except") or ())
        if not rule.get("ports") or _ports(rule):
            found.append(
                Way(networks=tuple(b["cidr"] for b in blocks), excepted=excepted, ports=_ports(rule))
            )
    # What one excepts another may allow: those come first.
    return tuple(sorted(found, key=lambda way: bool(way.excepted)))


def _ports(rule: Raw) -> tuple[Port, ...]:
    return tuple(
        (str(one.get("protocol", "TCP")).lower(), one["port"])
        for one in rule.get("ports") or ()
        if isinstance(one.get("port"), int)
    )


def _sources(pod: Raw, pods: list[Raw], selecting: list[Raw]) -> tuple[str, ...] | None:
    space = pod["metadata"]["namespace"]
    applied = [spec for spec in selecting if _closes(spec, "Ingress")]
    if not applied:
        return None
    allowed: set[str] = set()
    for spec in applied:
        for rule in spec.get("ingress") or ():
            for peer in rule.get("from") or ():
                if set(peer) == {"podSelector"}:
                    for other in pods:
                        if other["metadata"]["namespace"] == space and _selects(peer["podSelector"], other):
                            allowed.update(_addresses(other))
    return tuple(sorted(allowed, key=lambda a: (ip_address(a).version, a)))


def _selects(selector: dict[str, Any], pod: Raw) -> bool:
    labels = pod["metadata"].get("labels") or {}
    wanted = selector.get("matchLabels") or {}
    return not selector.get("matchExpressions") and all(labels.get(k) == v for k, v in wanted.items())


async def _run(
    client: Client, node: str, backend: rules.Backend, families: list[int], stop: asyncio.Event
) -> None:
    last: tuple[Endpoint, ...] | None = None
    written, now = 0.0, asyncio.get_running_loop().time
    while not stop.is_set():
        try:
            pods, policies = (await client.list(PODS.raw())).items, (await client.list(POLICIES)).items
            current = endpoints(node, pods, policies)
            if current != last or now() - written > _REFRESH_SECONDS:
                for family in families:
                    rules.felix(backend, family, current)
                last, written = current, now()
        except KubeError as error:
            print(f"felix: {error}", flush=True)  # noqa: T201
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


async def _main(given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    families = [int(text) for text in given.families.split(",")]
    async with Client(config.load(given.kubeconfig), user_agent="calico-node") as client:
        await _run(client, given.node, given.backend, families, stop)


def main() -> None:
    """``calico-node -felix --node NODE --kubeconfig FILE --backend nft|legacy|nftables --families 4,6``."""
    parser = argparse.ArgumentParser(prog="calico-node")
    parser.add_argument("-felix", action="store_true", required=True)
    for name in ("--node", "--kubeconfig"):
        parser.add_argument(name, required=True)
    parser.add_argument("--backend", choices=("nft", "legacy", "nftables"), default="nft")
    parser.add_argument("--families", default="4,6")
    asyncio.run(_main(parser.parse_args()))
