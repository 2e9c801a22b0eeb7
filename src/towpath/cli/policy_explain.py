"""``towpath policy explain FROM TO``: allowed or denied, by what, and what would have to change."""

import difflib
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import click
import msgspec

from towpath.cli.exit import FINDING, USAGE, CliError
from towpath.cli.output import emit, formats_option, mark, table
from towpath.cli.policy_input import Asked, Input, input_options
from towpath.model.net import Addr
from towpath.policy.evaluate import Flow
from towpath.policy.explain import Explanation, SideExplained, Step
from towpath.policy.explain import explain as explained
from towpath.policy.ir import ICMP, ICMPV6, Endpoint
from towpath.policy.port_matches import PROTOCOLS

SHOWN_ASIDE = 20  # policies that do not apply, on a screen
_ECHO = {4: (ICMP, 8), 6: (ICMPV6, 128)}
_ASIDE = ("not selected", "other direction", "not for tracked flows")

Enforced = Callable[[Flow, SideExplained], Sequence[str]]
"""What of the kernel implements a side's judgement, with counters, a line each. Asked where there is a kernel
to ask: its lines are the section ``kernel`` of a side.
"""


class Judged(msgspec.Struct, frozen=True):
    """Flows between addresses of the two that are judged alike, and the judgement of the first."""

    flows: tuple[Flow, ...]
    explanation: Explanation


def judgements(asked: Asked, source: str, target: str, port: str, namespace: str) -> list[Judged]:
    """One for each way in which the pairs of addresses, of both families, are judged.

    CliError if an end is not known, has no address, or if no pair is of one family.
    """
    sources = _addresses(asked, source, namespace)
    targets = _addresses(asked, target, namespace)
    flows = [
        _flow(asked, one, other, port) for one in sources for other in targets if one.version == other.version
    ]
    if not flows:
        raise CliError(f"no packet goes from {source} to {target}: they have no IP family in common", USAGE)
    alike: dict[object, list[tuple[Flow, Explanation]]] = {}
    for flow in flows:
        explanation = explained(asked.assembled.world, flow)
        alike.setdefault(_kind_of(explanation), []).append((flow, explanation))
    return [Judged(tuple(flow for flow, _ in pairs), pairs[0][1]) for pairs in alike.values()]


def _kind_of(explanation: Explanation) -> object:
    return (
        explanation.allowed,
        len(explanation.notes),
        tuple(
            (
                side.endpoint,
                side.direction,
                side.verdict,
                tuple((s.policy, s.path, s.outcome) for s in side.steps),
            )
            for side in explanation.sides
        ),
    )


def _addresses(asked: Asked, text: str, namespace: str) -> tuple[Addr, ...]:
    try:
        return (ip_address(text),)
    except ValueError:
        pass
    prefix, slash, rest = text.partition("/")
    name = f"Node/{rest}" if prefix == "node" else f"Pod/{text}" if slash else f"Pod/{namespace}/{text}"
    if name in asked.assembled.aside:
        raise CliError(f"{name} {asked.assembled.aside[name]}", USAGE)
    known = {endpoint.name: endpoint for endpoint in asked.assembled.world.endpoints}
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {_as_typed(known[near[0]])}?" if near else ""
        raise CliError(f"there is no {name}{hint} (give NAMESPACE/POD, POD, node/NAME or an address)", USAGE)
    if not known[name].addresses:
        raise CliError(f"{name} has no address yet", USAGE)
    return known[name].addresses


def _as_typed(endpoint: Endpoint) -> str:
    kind, _, name = endpoint.name.partition("/")
    return name if kind == "Pod" else endpoint.name.lower()


def _flow(asked: Asked, source: Addr, target: Addr, text: str) -> Flow:
    """``80``, ``80/tcp``, ``dns/udp`` (a name of the target's ports) or ``icmp``."""
    port, _, protocol = text.lower().partition("/")
    if port in ("icmp", "ping") and not protocol:
        number, icmp_type = _ECHO[source.version]
        return Flow(source=source, destination=target, protocol=number, icmp_type=icmp_type)
    number = PROTOCOLS.get((protocol or "tcp").upper(), 0)
    if not number:
        raise CliError(f"--port {text}: the protocol is none of tcp, udp, sctp (or write icmp)", USAGE)
    destination = (
        int(port) if port.isascii() and port.isdigit() else _named(asked, target, port, number, text)
    )
    if not 0 < destination < 65536:
        raise CliError(f"--port {text}: no port from 1 to 65535", USAGE)
    return Flow(source=source, destination=target, protocol=number, destination_port=destination)


def _named(asked: Asked, target: Addr, name: str, protocol: int, text: str) -> int:
    for endpoint in asked.assembled.world.endpoints:
        if target in endpoint.addresses:
            for port in endpoint.ports:
                if (port.name, port.protocol) == (name, protocol):
                    return port.port
    raise CliError(f"--port {text}: {target} has no port of this name; write its number", USAGE)


def as_data(asked: Asked, judged: Sequence[Judged], enforced: Enforced | None = None) -> dict[str, Any]:
    """All of it, plain; every rule and edit with where it stands."""
    return {
        "allowed": all(one.explanation.allowed for one in judged),
        "flows": [
            {
                "flow": one.explanation.flow,
                "addresses": [{"from": str(flow.source), "to": str(flow.destination)} for flow in one.flows],
                "allowed": one.explanation.allowed,
                "notes": list(one.explanation.notes),
                "sides": [_side(asked, one.flows[0], side, enforced) for side in one.explanation.sides],
                "edits": [
                    {"kind": e.kind, **_place(asked, e.policy, e.path), "text": e.text}
                    for e in one.explanation.edits
                ],
            }
            for one in judged
        ],
    }


def _side(asked: Asked, flow: Flow, side: SideExplained, enforced: Enforced | None) -> dict[str, Any]:
    verdict = side.verdict
    data = {
        "endpoint": side.endpoint,
        "direction": side.direction,
        "allowed": verdict.allowed,
        "text": verdict.text,
        "tier": verdict.tier,
        **_place(asked, verdict.policy, verdict.path),
        "steps": [_step(asked, step) for step in side.steps],
    }
    return data if enforced is None else {**data, "kernel": list(enforced(flow, side))}


def _step(asked: Asked, step: Step) -> dict[str, Any]:
    place = _place(asked, step.policy, step.path)
    return {"tier": step.tier, **place, "outcome": step.outcome, "reasons": list(step.reasons)}


def _place(asked: Asked, policy: tuple[str, str, str] | None, path: str) -> dict[str, str]:
    if policy is None:
        return {"policy": "", "path": path, "where": ""}
    name = "/".join(filter(None, policy))
    return {"policy": name, "path": path, "where": asked.where(name, path)}


def screen(data: dict[str, Any]) -> str:
    """For a person."""
    lines: list[str] = []
    for one in data["flows"]:
        lines += [f"{_verdict(one['allowed'])}  {one['flow']}"]
        lines += [f"  the same: {pair['from']} to {pair['to']}" for pair in one["addresses"][1:]]
        lines += [f"  {note}" for note in one["notes"]]
        for side in one["sides"]:
            lines += ["", *_side_lines(side)]
        if one["edits"]:
            lines += ["", "To allow it, all of this:" if len(one["edits"]) > 1 else "To allow it:"]
        for number, edit in enumerate(one["edits"], 1):
            lines.append(f"  {number}. {edit['text']}" + (f" ({edit['where']})" if edit["where"] else ""))
        lines.append("")
    return "\n".join(lines[:-1])


def _verdict(allowed: bool) -> str:
    return mark("ALLOWED", "ok") if allowed else mark("DENIED", "error")


def _side_lines(side: dict[str, Any]) -> list[str]:
    where = f" ({side['where']})" if side["where"] else ""
    sign = mark("✓", "ok") if side["allowed"] else mark("✗", "error")
    lines = [f"{sign} {side['direction']} of {side['endpoint']}: {side['text']}{where}"]
    aside = [number for number, step in enumerate(side["steps"]) if step["outcome"] in _ASIDE]
    hidden = set(aside[SHOWN_ASIDE:])
    rows = [_row(step) for number, step in enumerate(side["steps"]) if number not in hidden]
    if rows:
        text = table(["TIER", "POLICY", "RULE", "WHERE", "OUTCOME", "WHY"], rows)
        lines += [f"    {line}" for line in text.splitlines()]
    if hidden:
        lines.append(f"    and {len(hidden)} policies that do not apply (-o json shows them)")
    return lines + [f"    kernel: {line}" for line in side.get("kernel", ())]


def _row(step: dict[str, Any]) -> list[str]:
    rule = (step["path"], step["where"]) if step["path"] else ("-", "-")
    return [step["tier"], step["policy"], *rule, step["outcome"], "; ".join(step["reasons"])]


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--port",
    default="80/tcp",
    show_default=True,
    metavar="PORT[/PROTOCOL]",
    help="A number or a name of TO's ports, with tcp, udp or sctp; or icmp.",
)
@input_options
@formats_option("table", "json", "yaml")
@click.pass_context
def explain(ctx: click.Context, source: str, target: str, port: str, given: Input, output: str) -> None:
    """Whether FROM reaches TO: every tier, policy and rule that is looked at and why; when denied, every edit
    that would have to happen.

    FROM and TO are NAMESPACE/POD, POD, node/NAME or an address. A flow is judged as it is after a service's
    address translation. Exit code 0 when allowed, 3 when denied.
    """
    asked = given.asked(given.objects())
    data = as_data(asked, judgements(asked, source, target, port, given.namespace))
    emit(data, output, lambda: screen(data))
    if not data["allowed"]:
        ctx.exit(FINDING)
