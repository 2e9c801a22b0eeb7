"""The report as one HTML page that needs nothing else: verdict, how to read it, every path. Pure."""

from collections.abc import Sequence
from html import escape

from towpath.probe import svg
from towpath.probe.document import document, table
from towpath.probe.levels import Judgement, Level
from towpath.probe.result import Mark, PathResult, Result

_VERDICTS = {
    Level.H0: ("Nothing was lost", "Every question that should have been answered was, every one that must "
               "not be answered was not, and latency stayed where it was."),
    Level.H1: ("Barely noticeable", "Something was lost, but for less than 200 ms: a TCP stream repeats it "
               "once, and no new connection failed."),
    Level.H2: ("Noticeable, within the budget", "Traffic was interrupted for no longer than was allowed."),
    Level.DISRUPTIVE: ("Disruptive", "Traffic was interrupted for longer than was allowed, or traffic that a "
                       "policy denies got through."),
    Level.UNKNOWN: ("No verdict", "The probers themselves did not get the processor in time, so what they "
                    "saw proves nothing. Run again on a quieter machine, or with --slower."),
}  # fmt: skip
_KINDS = (
    ("udp", "a datagram over one and the same flow: the bare data path"),
    ("udp-fresh", "a datagram from a new port: address translation and policy for new flows"),
    ("tcp-echo", "a message over one long-lived connection: resets, stalls"),
    ("tcp-connect", "a new connection: what users notice first"),
    ("dns", "a DNS question"),
    ("deny-tcp, deny-udp", "a port that a NetworkPolicy closes: an answer is the fault"),
)
_WHERE_MOST = 12  # paths that the verdict names
_LEVELS = (
    "<p>Levels: <b>H0</b> nothing lost, nothing let through, 99.9th percentile at most 20 ms above the "
    "control window. <b>H1</b> gaps under 200 ms, no failed connect, no stream stalled for 500 ms. "
    "<b>H2</b> within a declared budget. Whatever lets denied traffic through is disruptive.</p>"
)
_STRIPS = (
    "<h2>How to read a strip</h2><p>Programs in pods, on a node and outside asked each other questions all "
    "the time, at moments fixed in advance. Time runs from left to right, each row is one kind of question, "
    "and everything that was not as it should be is a full bar, with the length of the gap below it. In the "
    "rows <i>deny</i> it is the other way round: silence is as it should be.</p>"
)
_BORDER = {Level.H0: svg.FINE, Level.H1: "#e69f00", Level.H2: "#e69f00", Level.UNKNOWN: svg.BLIND}


def page(result: Result) -> str:
    """The page, as UTF-8 text without any reference to another file."""
    body = [
        f"<h1>{escape(result.title)}</h1>",
        f"<p>{escape(result.begun)}, {result.seconds:.0f} seconds, {len(result.paths)} paths, "
        f"{result.total.sent + (result.control.sent if result.control else 0):,} questions.</p>",
        "<p>While this was done, small programs in pods, on nodes and outside asked each other questions on "
        "every path of the pod network. This page tells which of them were not answered, when, and for how "
        "long.</p>",
        _verdict(result),
        "<h2>All paths</h2>",
        _table(result),
        _LEVELS,
        _how_to_read(result),
        "<h2>Path by path</h2>",
        svg.PATTERNS,
        *(_path(number, path, result) for number, path in enumerate(result.paths)),
        _left_out(result),
        f"<h2>What is measured</h2><p>{escape(result.measured)}</p>",
    ]
    return document(f"{result.judgement.level}: {result.title}", body)


def _verdict(result: Result) -> str:
    level = result.judgement.level
    head, words = _VERDICTS[level]
    named = f"{head} (level {escape(level)})" if level in (Level.H0, Level.H1, Level.H2) else head
    why = "".join(f"<li>{escape(reason)}</li>" for reason in result.judgement.why)
    return (
        f'<section class="verdict" style="border-color:{_BORDER.get(level, svg.LOST)}"><b>{named}</b>'
        f"<p>{words}</p>{f'<ul>{why}</ul>' if why else ''}{_where(result)}"
        f"{_added(result.judgement)}</section>"
    )


def _where(result: Result) -> str:
    """The paths on which something was lost or let through, with what and when."""
    bad = [(number, path) for number, path in enumerate(result.paths) if path.gaps]
    if not bad:
        return ""
    items = "".join(
        f'<li><a href="#path-{number}">{escape(path.path)} (IPv{path.family})</a>: {_what(path)}</li>'
        for number, path in bad[:_WHERE_MOST]
    )
    more = f"<li>and {len(bad) - _WHERE_MOST} more paths</li>" if len(bad) > _WHERE_MOST else ""
    rest = len(result.paths) - len(bad)
    fine = f"<p>On the {rest} other paths nothing was lost.</p>" if rest else ""
    return f"<p>Where:</p><ul>{items}{more}</ul>{fine}"


def _what(path: PathResult) -> str:
    counts = [(probe.kind, sum(gap.bad for gap in probe.gaps)) for probe in path.probes if probe.gaps]
    hit = [f"{kind} {bad:,} {'let through' if kind.denied else 'lost'}" for kind, bad in counts]
    spared = [str(probe.kind) for probe in path.probes if not probe.gaps and not probe.kind.denied]
    others = f"; {', '.join(spared)} lost nothing" if spared else ""
    begin, longest = min(gap.at_ms for gap in path.gaps), max(gap.ms for gap in path.gaps)
    return f"{', '.join(hit)}, from {begin / 1000:.1f} s on, for {longest:.0f} ms at most{others}"


def _added(judgement: Judgement) -> str:
    if judgement.added_ms is None:
        return "<p>There was no control window, so latency is not judged.</p>"
    rose = f"rose by {judgement.added_ms:.1f} ms over the control window"
    return f"<p>The 99.9th percentile of latency {rose}.</p>"


def _table(result: Result) -> str:
    heads = (
        "path",
        "level",
        "asked",
        "lost",
        "failed connects",
        "longest gap",
        "let through",
        "p50",
        "p99.9",
        "not counted",
    )
    rows = [heads]
    for path in result.paths:
        seen = path.total
        rows.append(
            (
                f"{path.path} IPv{path.family}",
                str(path.judgement.level),
                f"{seen.sent:,}",
                f"{seen.lost:,}",
                f"{seen.failed_connects:,}",
                f"{seen.gap_ms:.0f} ms",
                f"{seen.fail_open_ms:.0f} ms",
                f"{seen.p50_ms:.2f} ms",
                f"{seen.p999_ms:.1f} ms",
                f"{seen.invalid_share:.2%}",
            )
        )
    return table(rows)


def _how_to_read(result: Result) -> str:
    keys = (
        (svg.FINE, "as it should be"),
        (svg.LOST, "lost"),
        (svg.OPEN, "denied traffic let through"),
        ("repeating-linear-gradient(45deg,#767676 0 1px,#eee 1px 5px)", "prober stalled, not counted"),
    )
    key = "".join(f'<span class="key" style="background:{colour}"></span>{words}' for colour, words in keys)
    kinds = "".join(f"<li><b>{name}</b>: {words}</li>" for name, words in _KINDS)
    control = (
        f"<p>The first {result.control_s:.0f} seconds, before the blue line, are the control window: nothing "
        "was done yet, and the rest is compared with it.</p>"
        if result.control_s
        else ""
    )
    return (
        f"{_STRIPS}<p>{key}</p>{control}"
        f"<details open><summary>The kinds of question</summary><ul>{kinds}</ul></details>"
        f"{_done(result.marks)}"
    )


def _done(marks: Sequence[Mark]) -> str:
    """What was done: the black lines in the strips, by number where there is room for numbers."""
    if not marks:
        return ""
    items = "".join(f"<li>{mark.at_ms / 1000:.1f} s: {escape(mark.what)}</li>" for mark in marks)
    opened = " open" if len(marks) <= svg.NUMBERED else ""
    return (
        f"<details{opened}><summary>What was done, and when: the black lines</summary><ol>{items}</ol>"
        "</details>"
    )


def _path(number: int, path: PathResult, result: Result) -> str:
    percentiles = ", ".join(f"p{percent:g} {ms:.2f} ms" for percent, ms in path.percentiles).replace(
        "p100", "longest"
    )
    why = "; ".join(path.judgement.why) or "nothing lost"
    return (
        f'<h3 id="path-{number}">{escape(path.path)}, IPv{path.family}: {escape(path.judgement.level)}, '
        f"{escape(why)}</h3>"
        f'<div class="scroll">{svg.strip(path, result.seconds, result.control_s, result.marks)}</div>'
        f"<details><summary>Latency: {percentiles}</summary>"
        "<p>Every second: blue the median, amber dashes the 99th percentile, red dots the longest.</p>"
        f"{svg.latencies(path, result.seconds)}</details>"
    )


def _left_out(result: Result) -> str:
    if not result.left_out:
        return ""
    items = "".join(
        f"<li>{escape(one.path)} IPv{one.family}, {one.kind}: {escape(one.why)}</li>"
        for one in result.left_out
    )
    return f"<h2>Left out, because it would prove nothing</h2><ul>{items}</ul>"
