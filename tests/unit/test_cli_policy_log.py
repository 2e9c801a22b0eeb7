"""What ``towpath policy log`` makes of agents' logs."""

import json

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from towpath.api.policy_record import EVENT, LOGGER, LOST, End, PolicyRecord
from towpath.cli.exit import CliError
from towpath.cli.policy import command
from towpath.cli.policy_input import Origin
from towpath.cli.policy_log import Line, Places, Wanted, as_data, cells, parsed, seconds_of

RECORD = PolicyRecord(
    time="2026-11-27T08:00:00.000Z",
    node="n1",
    action="deny",
    direction="ingress",
    protocol="tcp",
    source=End(address="10.42.1.2", port=40000, object="Pod/shop/web"),
    destination=End(address="10.42.1.3", port=80, object="Pod/shop/db"),
    tier="default",
    policy="NetworkPolicy/shop/db",
    rule="spec.ingress[0]",
    rule_index=0,
)


def line(logger: str = LOGGER, event: str = EVENT, **more: object) -> bytes:
    return msgspec.json.encode({"time": "t", "level": "info", "logger": logger, "event": event, **more})


def test_lines_of_agents_logs() -> None:
    assert parsed(line(record=RECORD), "n1") == Line("n1", RECORD)
    lost = parsed(line(event=LOST, denials=7, messages=2), "n1")
    assert lost == Line("n1", lost="7 denied packets came too fast to be told, 2 messages were lost")
    # What else an agent, or what is around it, may write.
    for other in (
        b"",
        b"Traceback towpath.policylog",
        line("towpath.cni", record=RECORD),
        line("towpath.cni", about=LOGGER),
        line(),
        line(record={"time": 1}),
        line(event="other"),
    ):
        assert parsed(other, "n1") is None
    # A later agent may say more.
    newer = {**msgspec.to_builtins(RECORD), "bytes": 60}
    assert parsed(line(record=newer), "n1") == Line("n1", RECORD)


def test_what_is_asked_for() -> None:
    def wanted(namespace: str = "", pods: tuple[str, ...] = (), actions: tuple[str, ...] = ()) -> bool:
        return Wanted("", namespace, frozenset(pods), frozenset(actions)).has(RECORD)

    assert wanted() and wanted("shop") and wanted(pods=("shop/db", "x/y")) and wanted(actions=("deny",))
    assert not wanted("sho") and not wanted(pods=("shop/d",)) and not wanted(actions=("log", "cut"))


def test_rows_and_data() -> None:
    document = yaml.compose("kind: NetworkPolicy\nspec:\n  ingress:\n  - from: []\n")
    places = Places({"NetworkPolicy/shop/db": Origin("db.yaml", document=document)})
    row = cells(RECORD, Places({}))
    assert row[2:] == [
        "deny",
        "ingress",
        "tcp",
        "Pod/shop/web (10.42.1.2:40000)",
        "Pod/shop/db (10.42.1.3:80)",
        "spec.ingress[0] of NetworkPolicy/shop/db",
    ]
    data = json.loads(json.dumps(as_data(RECORD, places)))
    assert data["where"] == "db.yaml:4" and data["ruleIndex"] == 0
    assert "where" not in as_data(RECORD, Places({}))


def test_durations() -> None:
    assert [seconds_of(text) for text in ("90s", "10m", "1h30m")] == [90, 600, 5400]
    for wrong in ("", "5", "-1m", "1d"):
        with pytest.raises(CliError):
            seconds_of(wrong)


def test_wrong_usage() -> None:
    for arguments, words in (
        (["--follow", "-o", "json"], "use -o jsonl"),
        (["--pod", "db"], "NAMESPACE/NAME"),
        (["--since", "yesterday"], "no duration"),
    ):
        ended = CliRunner().invoke(command, ["log", *arguments])
        assert isinstance(ended.exception, CliError) and words in str(ended.exception)
        assert ended.exception.exit_code == 2
