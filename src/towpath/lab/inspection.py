"""Verbs that look: inspect (what the lab is), logs of its own processes, run-in (who reaches whom)."""

import os
from typing import Any

import msgspec

from towpath.lab import namespaces, probe, topology
from towpath.lab.conversation import Conversation, Verb
from towpath.lab.orders import Order, ask
from towpath.lab.rootfs import STATE
from towpath.lab.rundir import LabError
from towpath.lab.targets import Places

_MOST_AT_ONCE = 32
_LOG_TAIL = 256 * 1024


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Probes from one place. ``from`` is ``{"pod": NAME}``, ``{"node": NAME}`` or ``{"outside": true}``."""

    origin: dict[str, Any] = msgspec.field(name="from")
    to: list[probe.Destination] = []


def run_in(conversation: Conversation) -> list[dict[str, Any]]:
    """Probe from many namespaces side by side: one forked child each."""
    try:
        questions = msgspec.convert(conversation.argument("probes"), list[Question])
    except msgspec.ValidationError as bad:
        raise LabError(f"run-in: {bad}") from bad
    timeout = float(conversation.argument("timeout", 2.0))
    places = Places(conversation.spec)
    asked = [(question, places.netns(places.find(_place(question.origin)))) for question in questions]
    results: list[dict[str, Any]] = []
    for start in range(0, len(asked), _MOST_AT_ONCE):
        batch = asked[start : start + _MOST_AT_ONCE]
        pipes = [_ask_in_child(netns, question, timeout) for question, netns in batch]
        for (question, _), pipe in zip(batch, pipes, strict=True):
            with os.fdopen(pipe, "rb") as answers:
                raw = answers.read()
            outcomes = msgspec.json.decode(raw) if raw else []
            results.append({"from": question.origin, "to": outcomes})
            conversation.say(progress=f"{len(results)}/{len(asked)} sources probed")
    return results


def _place(origin: dict[str, Any]) -> str:
    for key in ("pod", "node"):
        if key in origin:
            return str(origin[key])
    return "outside"


def _ask_in_child(netns: int, question: Question, timeout: float) -> int:
    read, write = os.pipe()
    if os.fork() == 0:
        code = 1
        try:
            namespaces.setns(netns, namespaces.CLONE_NEWNET)
            outcomes = probe.probe(question.to, timeout)
            with os.fdopen(write, "wb") as answers:
                answers.write(msgspec.json.encode(outcomes))
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    os.close(netns)
    return read


def inspect(conversation: Conversation) -> dict[str, Any]:
    """The lab as built: addresses, namespaces, sockets, networks."""
    spec, report = conversation.spec, ask(Order(op="list"))
    pids = {process.name: process for process in report.nodes}
    return {
        "name": spec.name,
        "families": list(spec.families),
        "backend": spec.backend,
        "directRouting": spec.direct_routing,
        "podNetworks": topology.networks(spec, topology.POD_NETWORK4, topology.POD_NETWORK6),
        "serviceNetworks": topology.networks(spec, topology.SERVICE_NETWORK4, topology.SERVICE_NETWORK6),
        "api": {"url": topology.api_url(spec), "pid": report.api},
        "outside": topology.outside_addresses(spec),
        "nodes": [
            {
                "name": node.name,
                "addresses": topology.internal_ips(spec, node),
                "segment": node.segment,
                "port": node.port,
                "pid": pids[node.name].pid,
                "bootID": pids[node.name].boot_id,
                "boots": pids[node.name].boots,
            }
            for node in spec.nodes
        ],
    }


def component_logs(conversation: Conversation) -> str:
    """The end of a component's own log: ``apiserver``, or ``kubelet`` of a node."""
    component = str(conversation.argument("component"))
    path = STATE / "apiserver.log"
    if component == "kubelet":
        node = conversation.spec.node(str(conversation.argument("node")))
        path = STATE / "nodes" / node.name / "disk" / "var-log" / "kubelet.log"
    elif component != "apiserver":
        raise LabError(f"there is no component {component!r}", "apiserver, kubelet")
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError as missing:
        raise LabError(f"{component} has no log: {missing.strerror}") from missing


VERBS: dict[str, Verb] = {"run-in": run_in, "inspect": inspect, "component-logs": component_logs}
