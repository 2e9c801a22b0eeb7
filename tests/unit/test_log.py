"""One line an event, whatever is in its fields."""

import io
import json
import logging
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from towpath.log import configure, get_logger


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_keeps_fields_apart_and_the_head_wins() -> None:
    out = io.StringIO()
    configure("json", "info", out)
    log = get_logger("towpath.x").bind(node="n1")
    log.info("peer added", peer=ip_address("10.0.0.1"), event="forged", names=("a", "b"))
    log.debug("not shown")
    line = json.loads(out.getvalue())
    assert line["event"] == "peer added"
    assert line["node"] == "n1"
    assert line["peer"] == "10.0.0.1"
    assert line["level"] == "info"
    assert line["names"] == ["a", "b"]
    assert line["time"].endswith("Z")


def test_exceptions_stay_on_one_line_in_json() -> None:
    out = io.StringIO()
    configure("json", "info", out)
    try:
        raise ValueError("odd\nthing")
    except ValueError:
        get_logger().exception("failed", step=1)
    assert out.getvalue().count("\n") == 1
    assert "odd" in json.loads(out.getvalue())["exception"]


def test_console_and_the_standard_library() -> None:
    out = io.StringIO()
    configure("console", "warning", out)
    get_logger().warning("slow", seconds=3, why="a b")
    logging.getLogger("asyncio").error("from %s", "elsewhere")
    first, second = out.getvalue().splitlines()
    assert first.endswith('warning slow  seconds=3 why="a b"')
    assert second.endswith("error   from elsewhere")
