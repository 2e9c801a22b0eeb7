"""What the verbs about policy draw: pages that need nothing else, and graphs for Graphviz."""

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = (
    "body{font-family:sans-serif}table{border-collapse:collapse;margin-bottom:2em}"
    "th,td{border:1px solid #999;padding:.3em .6em;text-align:left;vertical-align:top}"
    ".all,.ok{background:#cfc}.some{background:#ffc}.none,.error{background:#fcc}"
)

Cell = str | tuple[str, str]
"""A text; or a text and the class of its cell."""


def page(title: str, *parts: str) -> str:
    """A whole page of what ``heading``, ``paragraph`` and ``html_table`` made."""
    return "\n".join(
        (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>",
            *parts,
            "</body></html>",
        )
    )


def heading(text: str) -> str:
    """Of a part."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, state: str = "") -> str:
    """``state`` colours it."""
    return f"<p{_class(state)}>{escape(text)}</p>"


def html_table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Lines within a text stay lines."""
    lines = ["<table>", f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    lines += [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    return "\n".join((*lines, "</table>"))


def _cell(cell: Cell) -> str:
    text, state = (cell, "") if isinstance(cell, str) else cell
    return f"<td{_class(state)}>{escape(text).replace(chr(10), '<br>')}</td>"


def _class(state: str) -> str:
    return f' class="{state}"' if state else ""


def graph(lines: Iterable[str]) -> str:
    """Of nodes and edges, as ``node`` and ``edge`` write them."""
    head = ("digraph policy {", "  rankdir=LR;", "  node [shape=box];")
    return "\n".join((*head, *(f"  {line}" for line in lines), "}"))


def node(name: str, label: str | Iterable[str], colour: str = "") -> str:
    """``name`` is one of Graphviz's own: letters and digits."""
    return f"{name} [label={_quoted(label)}{_coloured(colour)}];"


def edge(source: str, target: str, label: str | Iterable[str] = "", colour: str = "") -> str:
    """From one node to another."""
    return f"{source} -> {target} [label={_quoted(label)}{_coloured(colour)}];"


def _coloured(colour: str) -> str:
    return f", color={colour}, fontcolor={colour}" if colour else ""


def _quoted(text: str | Iterable[str]) -> str:
    lines = [text] if isinstance(text, str) else text
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'
