"""``towpath policy matrix``: who reaches whom on what, by class of what acts alike."""

from collections.abc import Iterable, Sequence
from typing import Any

import click

from towpath.cli.output import emit, formats_option, table
from towpath.cli.policy_input import Input, input_options
from towpath.cli.policy_pages import Cell, edge, graph, heading, html_table, node, page
from towpath.policy.connections import Connections
from towpath.policy.matrix import Matrix, PlaceClass
from towpath.policy.matrix import matrix as matrix_of
from towpath.policy.places import Place

SHOWN = 4  # members of a class on a screen


def class_text(one: PlaceClass, shown: int = SHOWN) -> str:
    """Its first members, and how many more there are."""
    texts = [str(member) for member in one.members[:shown]]
    rest = len(one.members) - len(texts)
    return "; ".join(texts) + (f"; and {rest} more" if rest else "")


def place_data(place: Place) -> dict[str, Any]:
    """``names`` of endpoints and their address, or a network and what is left out of it."""
    if place.net is None:
        return {"names": list(place.names), "address": str(place.address)}
    return {"net": str(place.net), "except": [str(net) for net in place.but]}


def class_data(one: PlaceClass) -> dict[str, Any]:
    """All its members."""
    return {
        "kind": one.kind,
        "family": one.family,
        "members": [place_data(member) for member in one.members],
    }


def is_one_endpoint(source: PlaceClass, target: PlaceClass) -> bool:
    """Whether both are the same endpoint and nothing else: of it and itself no cell says anything."""
    return source.members == target.members and len(source.members) == 1 and bool(source.members[0].names)


def named_classes(found: Matrix) -> dict[PlaceClass, str]:
    """``C1``…: a class that is a source as well as a destination has one name."""
    return {one: f"C{n}" for n, one in enumerate(dict.fromkeys((*found.sources, *found.destinations)), 1)}


def as_data(found: Matrix) -> dict[str, Any]:
    """Classes by name, and the cells in which there is anything."""
    names = named_classes(found)
    return {
        "classes": [{"name": name, **class_data(one)} for one, name in names.items()],
        "sources": [names[one] for one in found.sources],
        "destinations": [names[one] for one in found.destinations],
        "cells": [
            {"from": names[source], "to": names[target], "connections": str(cell)}
            for source, row in zip(found.sources, found.cells, strict=True)
            for target, cell in zip(found.destinations, row, strict=True)
            if cell and not is_one_endpoint(source, target)
        ],
    }


def screen(found: Matrix) -> str:
    """The classes, and for each source what it reaches, destinations of the same connections together."""
    names = named_classes(found)
    classes = [[name, one.kind, f"IPv{one.family}", class_text(one)] for one, name in names.items()]
    reached: dict[str, dict[str, list[str]]] = {names[source]: {} for source in found.sources}
    for cell in as_data(found)["cells"]:
        reached[cell["from"]].setdefault(cell["connections"], []).append(cell["to"])
    rows = []
    for source, by_cell in reached.items():
        rows += [[source, " ".join(targets), cell] for cell, targets in by_cell.items()]
        rows += [] if by_cell else [[source, "-", "none"]]
    parts = table(["CLASS", "KIND", "FAMILY", "MEMBERS"], classes), table(["FROM", "TO", "CONNECTIONS"], rows)
    return "\n\n".join((*parts, "What is not listed is denied; an endpoint always reaches itself."))


def dot(found: Matrix) -> str:
    """For Graphviz: a node a class, an edge a cell with anything in it."""
    nodes = [node(name, class_lines(one)) for one, name in named_classes(found).items()]
    cells = as_data(found)["cells"]
    return graph((*nodes, *(edge(cell["from"], cell["to"], cell["connections"]) for cell in cells)))


def html(found: Matrix) -> str:
    """A page of its own: a table of the classes, and one of sources by destinations."""
    names = named_classes(found)
    classes = [
        (name, one.kind, f"IPv{one.family}", "\n".join(map(str, one.members))) for one, name in names.items()
    ]
    rows = [
        [names[source], *map(_cell, _told(found, source, row))]
        for source, row in zip(found.sources, found.cells, strict=True)
    ]
    return page(
        "Policy matrix",
        heading("Classes"),
        html_table(("Class", "Kind", "Family", "Members"), classes),
        heading("From (rows) to (columns)"),
        html_table(("", *(names[target] for target in found.destinations)), rows),
    )


def _told(
    found: Matrix, source: PlaceClass, row: Sequence[Connections | None]
) -> Iterable[Connections | None]:
    for target, cell in zip(found.destinations, row, strict=True):
        yield None if is_one_endpoint(source, target) else cell


def _cell(cell: Connections | None) -> Cell:
    text = "" if cell is None else str(cell)
    return text, text if text in ("", "all", "none") else "some"


def class_lines(one: PlaceClass) -> list[str]:
    """Its first members, and how many more there are, by line."""
    shown = [str(member) for member in one.members[:SHOWN]]
    rest = len(one.members) - len(shown)
    return [*shown, f"and {rest} more"] if rest else shown


@click.command()
@input_options
@formats_option("table", "json", "yaml", "dot", "html")
def matrix(given: Input, output: str) -> None:
    """Who reaches whom on what, by class: endpoints and networks that act alike are one row and one column.

    The page of `-o html` needs nothing else; `-o dot` is for Graphviz.
    """
    asked = given.asked(given.objects())
    if not asked.has_pods:
        click.echo("towpath: no pods are given: policies select nobody", err=True)
    found = matrix_of(asked.assembled.world)
    if output in ("dot", "html"):
        click.echo(dot(found) if output == "dot" else html(found))
    else:
        emit(as_data(found), output, lambda: screen(found))
