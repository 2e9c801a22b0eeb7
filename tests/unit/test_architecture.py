"""The rules of docs/architecture.md that a machine can check."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{path.name}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_one_concern(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 440, f"{path} is more than one concern: split it"


def test_no_utils_modules() -> None:
    assert not [p for p in SOURCES if p.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_no_code_means_two_things() -> None:
    """Catalogues are merged into one: a code that stands in two would lose one of its meanings."""
    found = [
        str(node.value)
        for path in SOURCES
        if path.name.startswith("codes")
        for tree in ast.walk(ast.parse(path.read_text()))
        if isinstance(tree, ast.Dict)
        for node in tree.keys
        if isinstance(node, ast.Constant)
    ]
    assert sorted(found) == sorted(set(found))
