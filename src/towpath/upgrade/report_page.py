"""The report as one HTML page, for somebody who was not there and knows nothing of Towpath. Pure."""

from html import escape

from towpath.probe import svg
from towpath.probe.document import document, table
from towpath.upgrade import report_lanes as draw
from towpath.upgrade.report import NodeReport, Report, stamp

_STATES = {
    "passed": "upgraded, all gates passed",
    "gone": "not in the cluster any more",
    "failed": "did not pass; gets its old version back",
    "restored": "did not pass; has its old version again",
    "waiting": "never touched",
    "under way": "its turn is now",
    "rolled back": "has its old version again",
}
_BORDERS = {"done": svg.FINE, "rolled-back": "#e69f00", "paused": svg.LOST, "aborted": svg.LOST}
_NEXT = {
    "done": "Watch it for a day or two: <code>towpath upgrade watch --for 48h</code>. "
    "<code>towpath upgrade rollback</code> still gives every node what it had.",
    "paused": "Read below why. <code>towpath upgrade resume</code> tries again, "
    "<code>towpath upgrade rollback</code> gives every node what it had. Until then nothing moves.",
    "aborted": "Nothing moves any more. A new plan takes it up where it stands, "
    "<code>towpath upgrade rollback</code> gives every node what it had.",
    "rolled-back": "Mend what failed, then make a new plan: <code>towpath upgrade plan</code>.",
}
_CHECKS = {
    "ok": "✓ fine",
    "findings": "✗ found something",
    "untold": "? could not tell",
    "skipped": "– skipped",
}
_WORDS = (
    "<h2>What these words mean</h2><ul>"
    "<li><b>Network pod</b>: the program that gives the pods of a node their network, one a node. An upgrade "
    "replaces it; the other pods keep running, and should not notice.</li>"
    "<li><b>Gate</b>: a question that a node must answer well before the next node is touched. If it fails, "
    "the node gets its old version back and the upgrade stands still.</li>"
    "<li><b>Canary</b>: the first node, chosen because it can hurt least, and watched longer.</li>"
    "<li><b>Probe</b>: a program that asks another over the pod network, many times a second. A bar is a "
    "time in which it got no answer.</li></ul>"
)


def page(found: Report) -> str:
    """UTF-8 text without any reference to another file; it works without scripts."""
    title = f"{found.daemonset}: {found.source or 'what ran'} → {found.target}"
    body = [
        f"<h1>Upgrade of {escape(title)}</h1>",
        f"<p>{escape(found.begun)} to {escape(found.ended)}, {_duration(found.seconds)}; "
        f"cluster {escape(found.cluster)}.</p>",
        _verdict(found),
        _lost(found),
        f'<h2>Who had its turn when</h2><div class="scroll">{draw.lanes(found)}</div><ul>{draw.key()}</ul>',
        _nodes(found),
        _versions(found),
        "<h2>Gates, node by node</h2>",
        svg.PATTERNS,
        *(_gates(node) for node in found.nodes if node.gates),
        _checks(found),
        _audits(found),
        _rehearsal(found),
        _journal(found),
        _WORDS,
        f"<p>Plan {escape(found.plan)}. Made by <code>towpath upgrade report</code> from the journal in the "
        "ConfigMap kube-system/towpath-upgrade.</p>",
    ]
    return document(f"{found.mode}: {title}", body)


def _verdict(found: Report) -> str:
    pauses = "".join(f"<li>It stood still: {escape(pause.what or 'by hand')}</li>" for pause in found.pauses)
    border = _BORDERS.get(found.mode, "#0072b2")
    level = f" ({found.level}, {found.asked:,} questions)" if found.level else ""
    return (
        f'<section class="verdict" style="border-color:{border}"><b>{escape(found.verdict)}</b>'
        f"<p>{escape(found.cost)}{level}</p>{f'<ul>{pauses}</ul>' if pauses else ''}"
        f"<p>{_NEXT.get(found.mode, '')}</p></section>"
    )


def _lost(found: Report) -> str:
    if not found.lost:
        return ""
    rows = [("while this node had its turn", "path", "asked", "lost", "longest gap", "denied, let through")]
    for loss in found.lost:
        seen = loss.seen
        path = f"{seen.path} IPv{seen.family}"
        gap = f"{seen.gap_ms:.0f} ms"
        rows.append((loss.node, path, f"{seen.sent:,}", f"{seen.lost:,}", gap, str(seen.opened)))
    return f"<h2>What was lost, and where</h2>{table(rows)}"


def _nodes(found: Report) -> str:
    rows = [("turn", "node", "why then", "what became of it", "runs now", "took")]
    for number, node in enumerate(found.nodes, 1):
        took = sum(span.end - span.begin for span in node.spans)
        state = _STATES.get(node.state, node.state)
        why = f": {node.why}" if node.why and node.state != "passed" else ""
        took_text = _duration(took) if node.spans else "–"
        rows.append((str(number), node.node, node.reason, f"{state}{why}", node.has, took_text))
    return table(rows, words=True)


def _versions(found: Report) -> str:
    rows = [("container", "image before", "image after")]
    for name, (old, new) in sorted(found.images.items()):
        rows.append((name, old, new if new != old else "the same"))
    return f"<h2>Versions</h2>{table(rows, words=True)}"


def _gates(node: NodeReport) -> str:
    bad = any(gate.state != "pass" for gate in node.gates)
    rows = [("gate", "answer", "what it saw", "looked for")]
    for gate in node.gates:
        sign = {"pass": "✓ pass", "fail": "✗ fail", "untold": "? cannot tell"}[gate.state]
        rows.append((gate.gate, sign, gate.saw, f"{gate.seconds:.1f} s"))
    strips = "".join(draw.strip(path) for gate in node.gates for path in gate.paths)
    state = escape(_STATES.get(node.state, node.state))
    return (
        f"<details{' open' if bad else ''}><summary><b>{escape(node.node)}</b>: {state}</summary>"
        f'{table(rows, words=True)}<div class="scroll">{strips}</div></details>'
    )


def _checks(found: Report) -> str:
    if not found.checks:
        return ""
    rows = [("check", "what must be so", "answer", "")]
    for check in found.checks:
        told = "; ".join((*check.told, *filter(None, (check.why,))))
        rows.append((str(check.number), check.title, _CHECKS.get(check.state, check.state), told))
    skipped = len(found.skipped)
    said = f"<p>{skipped} of them were skipped by whoever made the plan.</p>" if skipped else ""
    return f"<h2>What was checked before</h2>{said}{table(rows, words=True)}"


def _audits(found: Report) -> str:
    """What was known of the images to come, each under its own summary."""
    parts = []
    for one in found.audits:
        rows = [("severity", "code", "where", "what")]
        rows += [(f.severity, f.code, f.path, f.told) for f in one.findings]
        if one.compared:
            rows = [("what changed", "", "before", "after")]
            rows += [(change.kind, change.what, change.old, change.new) for change in one.changes]
        more = f"<p>{one.left_out} more are counted and not listed.</p>" if one.left_out else ""
        told = f"<summary><b>{escape(one.source)}</b>: {escape(one.summary(found.digests))}</summary>"
        listed = table(rows, words=True) if rows[1:] else ""
        parts.append(f"<details{' open' if one.grave else ''}>{told}{listed}{more}</details>")
    return f"<h2>What the new images hold</h2>{''.join(parts)}" if parts else ""


def _rehearsal(found: Report) -> str:
    """Whether it was tried in a twin first, and how that went."""
    seen = found.rehearsal
    if seen is None:
        return "<h2>Rehearsal</h2><p>It was not rehearsed in a twin before.</p>"
    how = (
        "and came to its end"
        if seen.mode == "done"
        else f"and did not come to its end ({seen.mode}): {seen.why}"
    )
    told = (
        *([f"probes in the twin: {seen.probed}"] if seen.probed else []),
        *(f"not as in the cluster: {note}" for note in seen.notes),
        *(f"differs: {one}" for one in seen.differs),
    )
    items = "".join(f"<li>{escape(one)}</li>" for one in told)
    return (
        f"<h2>Rehearsal</h2><p>Carried out before in a twin made of {escape(seen.source)} "
        f"({seen.nodes} nodes, {seen.pods} pods), {escape(seen.taken)}, {escape(how)}, "
        f"in {_duration(seen.seconds)}.</p>"
        f"{f'<ul>{items}</ul>' if items else ''}"
    )


def _journal(found: Report) -> str:
    rows = [("when", "what", "node", "")]
    rows += [(stamp(record.at), record.event, record.node, record.text) for record in found.records]
    told = f"<details><summary>{len(found.records)} records</summary>{table(rows, words=True)}</details>"
    return f"<h2>The journal</h2><p>Written before each step was taken.</p>{told}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
