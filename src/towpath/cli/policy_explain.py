"""``towpath policy explain FROM TO``: allowed or denied, by what, and what would have to change."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import click
import msgspec

from towpath.api.inquiry import Asked as Question
from towpath.api.inquiry import Enforcement, Found
from towpath.cli import policy_explain_drawn
from towpath.cli.exit import FINDING, USAGE, CliError
from towpath.cli.output import emit, formats_option, mark, table
from towpath.cli.policy_enforced import OnNode, ask, asked_about, node_of
from towpath.cli.policy_input import Asked, Input, input_options
from towpath.model.finding import Finding
from towpath.model.net import Addr
from towpath.policy.evaluate import Flow, endpoints_at
from towpath.policy.explain import Explanation, SideExplained, Step
from towpath.policy.explain import explain as explained
from towpath.policy.ir import ICMP, ICMPV6, Endpoint
from towpath.policy.port_matches import PROTOCOLS

SHOWN_ASIDE = 20  # policies that do not apply, on a screen
_ECHO = {4: (ICMP, 8), 6: (ICMPV6, 128)}
_ASIDE = ("not selected", "other direction", "not for tracked flows")

Enforced = Callable[[Flow, SideExplained], OnNode]
"""What of the kernel implements a side's judgement, with counters, where there is a kernel to ask."""


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
        explanation = _explained(asked, flow)
        alike.setdefault(_kind_of(explanation), []).append((flow, explanation))
    return [Judged(tuple(flow for flow, _ in pairs), pairs[0][1]) for pairs in alike.values()]


def _explained(asked: Asked, flow: Flow) -> Explanation:
    """What policies say, but where nobody asks them: between a node and its own pods."""
    explanation = explained(asked.assembled.world, flow)
    senders = {endpoint.name for endpoint in endpoints_at(asked.assembled.world, flow.source)}
    judging = {
        f"Node/{node_of(asked, side)}" if side.endpoint.startswith("Pod/") else side.endpoint
        for side in explanation.sides
        if side.direction == "ingress"
    }
    if not judging or not judging <= senders:
        return explanation
    notes = ("no policy is asked: a node always reaches its own pods",)
    return msgspec.structs.replace(explanation, allowed=True, notes=notes, sides=())


def _kind_of(explanation: Explanation) -> object:
    return (
        explanation.allowed,
        len(explanation.notes),
        tuple(
            (
                side.endpoint,
                side.direction,
                side.passing,
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
        near = _near(name, known)
        hint = f"; did you mean {_as_typed(known[near[0]])}?" if near else ""
        raise CliError(f"there is no {name}{hint} (give NAMESPACE/POD, POD, node/NAME or an address)", USAGE)
    if not known[name].addresses:
        raise CliError(f"{name} has no address yet", USAGE)
    return known[name].addresses


def _near(name: str, known: Mapping[str, Endpoint]) -> list[str]:
    """Those that may be meant: of another namespace, made by something of this name, or spelt alike."""
    last = name.rpartition("/")[2]
    elsewhere = [other for other in known if other.rpartition("/")[2] == last]
    made = [other for other in known if other.startswith(f"{name}-")]
    return elsewhere or made or difflib.get_close_matches(name, known, 1)


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
        "findings": [str(finding) for finding in _findings(asked, judged)],
        "flows": [
            {
                "flow": one.explanation.flow,
                "addresses": [{"from": str(flow.source), "to": str(flow.destination)} for flow in one.flows],
                "allowed": one.explanation.allowed,
                "notes": list(one.explanation.notes),
                "sides": [_side(asked, one.flows, side, enforced) for side in one.explanation.sides],
                "edits": [
                    {"kind": e.kind, **_place(asked, e.policy, e.path), "text": e.text}
                    for e in one.explanation.edits
                ],
            }
            for one in judged
        ],
    }


def _findings(asked: Asked, judged: Sequence[Judged]) -> Iterator[Finding]:
    """About the policies that apply: what of them is not in force as it was written."""
    sides = [(side.endpoint, side.direction) for one in judged for side in one.explanation.sides]
    labels = {endpoint.name: endpoint.labels for endpoint in asked.assembled.world.endpoints}
    applying = {
        str(policy)
        for policy in asked.assembled.world.policies
        for endpoint, direction in sides
        if policy.rules(direction) is not None and policy.selector.matches(labels[endpoint])
    }
    return (finding for finding in asked.assembled.findings if finding.object in applying)


def _side(
    asked: Asked, flows: Sequence[Flow], side: SideExplained, enforced: Enforced | None
) -> dict[str, Any]:
    verdict = side.verdict
    data = {
        "endpoint": side.endpoint,
        "direction": side.direction,
        "passing": side.passing,
        "allowed": verdict.allowed,
        "text": verdict.text,
        "tier": verdict.tier,
        **_place(asked, verdict.policy, verdict.path),
        "steps": [_step(asked, step) for step in side.steps],
    }
    if enforced is None:
        return data
    first, *others = (enforced(flow, side) for flow in flows)
    kernel = {"node": first.node, **msgspec.to_builtins(first.enforcement)}
    kernel["others"] = [
        {"from": str(flow.source), "to": str(flow.destination), **msgspec.to_builtins(other.enforcement)}
        for flow, other in zip(flows[1:], others, strict=True)
    ]
    return {**data, "kernel": kernel}


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
    lines += [f"{mark('!', 'error')} {finding}" for finding in data["findings"]]
    return "\n".join(lines).rstrip()


def _verdict(allowed: bool) -> str:
    return mark("ALLOWED", "ok") if allowed else mark("DENIED", "error")


def _side_lines(side: dict[str, Any]) -> list[str]:
    where = f" ({side['where']})" if side["where"] else ""
    sign = mark("✓", "ok") if side["allowed"] else mark("✗", "error")
    what = f"{side['direction']} of {side['endpoint']}{', passing through' if side['passing'] else ''}"
    lines = [f"{sign} {what}: {side['text']}{where}"]
    aside = [number for number, step in enumerate(side["steps"]) if step["outcome"] in _ASIDE]
    hidden = set(aside[SHOWN_ASIDE:])
    rows = [_row(step) for number, step in enumerate(side["steps"]) if number not in hidden]
    if rows:
        text = _steps_table(rows)
        lines += [f"    {line}" for line in text.splitlines()]
    if hidden:
        lines.append(f"    and {len(hidden)} policies that do not apply (-o json shows them)")
    return lines + (_kernel_lines(side["kernel"], allowed=side["allowed"]) if "kernel" in side else [])


def _kernel_lines(kernel: dict[str, Any], *, allowed: bool) -> list[str]:
    where = f"kernel of {kernel['node']}" if kernel["node"] else "kernel"
    lines = [f"    {where}: {kernel['problem']}" if kernel["problem"] else f"    {where}:"]
    lines += [f"      {msgspec.convert(hit, Found)}" for hit in kernel["hits"]]
    for other in kernel["others"]:
        counting = [str(msgspec.convert(hit, Found)) for hit in other["hits"] if hit["packets"] is not None]
        if set(counting) - set(map(str.strip, lines)):
            lines += [f"    {other['from']} to {other['to']}:", *(f"      {line}" for line in counting)]
    differing = [
        one["allowed"] for one in (kernel, *kernel["others"]) if one["allowed"] not in (None, allowed)
    ]
    if differing:
        does = "allows" if differing[0] else "denies"
        warning = f"the kernel {does} it: the node has not caught up yet, or its agent differs; ask again"
        lines.append(f"    {mark('!', 'error')} {warning}")
    return lines


def enforcement(given: Input, asked: Asked, judged: Sequence[Judged]) -> Enforced:
    """What the nodes answer, all asked at once."""
    wanted: dict[str, dict[Question, None]] = {}
    for one in judged:
        for side in one.explanation.sides:
            if node := node_of(asked, side):
                wanted.setdefault(node, {}).update((asked_about(flow, side), None) for flow in one.flows)
    answers = given.cluster.run(lambda client: ask(client, wanted))

    def found(flow: Flow, side: SideExplained) -> OnNode:
        node = node_of(asked, side)
        pod = side.endpoint.startswith("Pod/")
        why = (
            f"{side.endpoint} is on no node" if pod else "no policy is asked, a failsafe port is always open"
        )
        nobody = Enforcement(problem=why)
        return OnNode(node, answers.get((node, asked_about(flow, side)), nobody))

    return found


def _steps_table(rows: list[list[str]]) -> str:
    """WHERE and WHY only if there is any."""
    heads = ["TIER", "POLICY", "RULE", "WHERE", "OUTCOME", "WHY"]
    shown = [n for n, head in enumerate(heads) if head not in ("WHERE", "WHY") or any(row[n] for row in rows)]
    return table([heads[n] for n in shown], [[row[n] for n in shown] for row in rows])


def _row(step: dict[str, Any]) -> list[str]:
    reasons = "; ".join(step["reasons"])
    return [step["tier"], step["policy"], step["path"] or "-", step["where"], step["outcome"], reasons]


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
@click.option(
    "--kernel/--no-kernel",
    default=True,
    help="Ask the deciding nodes (by an annotation) what their kernels hold and have counted.",
)
@input_options
@formats_option("table", "json", "yaml", "dot", "html")
@click.pass_context
def explain(
    ctx: click.Context, source: str, target: str, port: str, kernel: bool, given: Input, output: str
) -> None:
    """Whether FROM reaches TO: every tier, policy and rule that is looked at and why; when denied, every edit
    that would have to happen. Of a live cluster also what implements it in the kernel, with its counters.

    FROM and TO are NAMESPACE/POD, POD, node/NAME or an address. A flow is judged as it is after a service's
    address translation. Exit code 0 when allowed, 3 when denied. `-o dot` is for Graphviz, `-o html` a page
    by itself.
    """
    asked = given.asked(given.objects())
    judged = judgements(asked, source, target, port, given.namespace)
    live = kernel and not given.files and not given.network
    data = as_data(asked, judged, enforcement(given, asked, judged) if live else None)
    if output in ("dot", "html"):
        click.echo(policy_explain_drawn.dot(data) if output == "dot" else policy_explain_drawn.html(data))
    else:
        emit(data, output, lambda: screen(data))
    if not data["allowed"]:
        ctx.exit(FINDING)
