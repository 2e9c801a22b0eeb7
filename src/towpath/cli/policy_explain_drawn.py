"""An explanation as a page, and as a graph: the way of a packet through what is looked at."""

from typing import Any

import msgspec

from towpath.api.inquiry import Found
from towpath.cli.policy_pages import edge, graph, heading, html_table, node, page, paragraph

_COLOURS = {"allow": "darkgreen", "deny": "red", "pass": "blue"}


def html(data: dict[str, Any]) -> str:
    """All of ``policy_explain.as_data``."""
    parts: list[str] = []
    for one in data["flows"]:
        verdict, state = ("ALLOWED", "ok") if one["allowed"] else ("DENIED", "error")
        parts += [heading(one["flow"]), paragraph(verdict, state)]
        parts += [paragraph(f"the same: {pair['from']} to {pair['to']}") for pair in one["addresses"][1:]]
        parts += [paragraph(note) for note in one["notes"]]
        for side in one["sides"]:
            parts += _side(side)
        if one["edits"]:
            edits = [(edit["text"], edit["where"]) for edit in one["edits"]]
            parts += [paragraph("To allow it, all of this:"), html_table(("Edit", "Where"), edits)]
    parts += [paragraph(finding, "error") for finding in data["findings"]]
    return page("Policy explanation", *parts)


def _side(side: dict[str, Any]) -> list[str]:
    state = "ok" if side["allowed"] else "error"
    where = f" ({side['where']})" if side["where"] else ""
    parts = [paragraph(f"{_title(side)}: {side['text']}{where}", state)]
    rows = [
        (
            step["tier"],
            step["policy"],
            step["path"],
            step["where"],
            step["outcome"],
            "; ".join(step["reasons"]),
        )
        for step in side["steps"]
    ]
    parts += [html_table(("Tier", "Policy", "Rule", "Where", "Outcome", "Why"), rows)] if rows else []
    for hit in side.get("kernel", {}).get("hits", ()):
        parts.append(paragraph(f"kernel of {side['kernel']['node']}: {msgspec.convert(hit, Found)}"))
    return parts


def dot(data: dict[str, Any]) -> str:
    """For Graphviz: of each flow, what is looked at on each side, in order, and what comes of it."""
    lines: list[str] = []
    for number, one in enumerate(data["flows"]):
        last = f"flow{number}"
        lines.append(node(last, one["flow"]))
        for place, side in enumerate(one["sides"]):
            for count, step in enumerate(side["steps"]):
                name = f"flow{number}side{place}step{count}"
                what = [step["policy"], *filter(None, (step["path"], step["where"]))]
                lines.append(
                    node(name, [f"tier {step['tier']}", *what], _COLOURS.get(step["outcome"], "gray"))
                )
                lines.append(edge(last, name, step["outcome"]))
                last = name
            end = f"flow{number}side{place}"
            lines.append(node(end, [_title(side), side["text"]], "darkgreen" if side["allowed"] else "red"))
            lines.append(edge(last, end))
            last = end
    return graph(lines)


def _title(side: dict[str, Any]) -> str:
    return f"{side['direction']} of {side['endpoint']}{', passing through' if side['passing'] else ''}"
