"""What changes on a running pod when its annotation does."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.multinet.annotation import Selection, selections
from towpath.multinet.derive import Call, wishes
from towpath.multinet.journal import Row
from towpath.multinet.plug import Changes, changes
from towpath.multinet.refusal import NetworkRefused


def asked(text: str) -> list[Selection]:
    return [msgspec.structs.replace(one, namespace=one.namespace or "d") for one in selections(text)]


def made(selection: Selection, ifname: str, **more: Any) -> Row:
    """What ADD, or a change, would have left of an entry."""
    wished = wishes(selection)
    call = Call(
        container_id="c", netns="/n", ifname=ifname, network="n", version="1.0.0", plugins=({"type": "x"},),
        runtime=wished.runtime, cni_args=wished.cni_args, device=wished.device,
    )  # fmt: skip
    given = {"place": 0, "main": "eth0", "runtime_network": "t", "boot_id": "b", "result": {}, **more}
    gateways = tuple(map(str, selection.gateways))
    return Row(call=call, reference=f"{selection.namespace}/{selection.name}", gateways=gateways, **given)


def rows(text: str) -> list[Row]:
    """Of a pod that was started with an annotation."""
    return [made(one, one.interface or f"net{n}") for n, one in enumerate(asked(text), 1)]


def after(before: list[Row], change: Changes) -> list[Row]:
    return [r for r in before if r not in change.detach] + [made(one, name) for one, name in change.attach]


def told(change: Changes) -> tuple[list[str], list[str]]:
    gone = [f"{row.reference}@{row.call.ifname}" for row in change.detach]
    return gone, [f"{one.namespace}/{one.name}@{name}" for one, name in change.attach]


@pytest.mark.parametrize(
    ("before", "now", "gone", "new"),
    [
        ("a,b", "a,b", [], []),
        ("a,b", "b", ["d/a@net1"], []),
        ("a", "b,a", [], ["d/b@net2"]),
        ("a,b", "b,c", ["d/a@net1"], ["d/c@net1"]),
        ("a,a", "a", ["d/a@net2"], []),
        ("a@x", "a", [], []),
        ("a", "a@x", ["d/a@net1"], ["d/a@x"]),
        ("a", "a,a@net3,a", [], ["d/a@net3", "d/a@net2"]),
        ("a", '[{"name": "a", "mac": "02:00:00:00:00:01"}]', ["d/a@net1"], ["d/a@net1"]),
        ('[{"name": "a", "ips": ["10.0.0.1/24"]}]', '[{"ips": ["10.0.0.1/24"], "name": "a"}]', [], []),
        ("a,b,c", "", ["d/a@net1", "d/b@net2", "d/c@net3"], []),
    ],
)
def test_what_is_asked_for_as_before_stays(before: str, now: str, gone: list[str], new: list[str]) -> None:
    assert told(changes(rows(before), asked(now), "eth0")) == (gone, new)


def test_what_all_pods_get_and_what_took_the_defaults_place_is_no_business_of_the_annotations() -> None:
    [a] = asked("a")
    fixed = [made(a, "eth0", instead=True), made(a, "net1", general=True)]
    assert not changes(fixed, [], "eth0")
    assert told(changes(fixed, [a], "eth0")) == ([], ["d/a@net2"])


def test_what_is_broken_is_made_anew() -> None:
    [a] = asked("a")
    for broken in (made(a, "net1", result=None), made(a, "net1", failures=1)):
        assert told(changes([broken], [a], "eth0")) == (["d/a@net1"], ["d/a@net1"])
        assert told(changes([broken], [], "eth0")) == (["d/a@net1"], [])


def test_a_device_that_was_found_for_the_pod_is_not_asked_for() -> None:
    [a] = asked("a")
    row = made(a, "net1")
    given = msgspec.structs.replace(row.call, device="0000:01:00.1", runtime={"deviceID": "0000:01:00.1"})
    assert not changes([msgspec.structs.replace(row, call=given)], [a], "eth0")


@pytest.mark.parametrize(
    ("before", "now", "code"),
    [
        ("a@x", "a@x,b@x", "TP6005"),
        ("", "b@x,a@x", "TP6005"),
        ("", "a@eth0", "TP6005"),
        (
            '[{"name": "a", "default-route": ["10.0.0.1"]}]',
            '[{"name": "a", "default-route": ["10.0.0.1"]}, {"name": "b", "default-route": ["10.0.0.2"]}]',
            "TP6011",
        ),
    ],
)
def test_what_is_refused(before: str, now: str, code: str) -> None:
    with pytest.raises(NetworkRefused) as refused:
        changes(rows(before), asked(now), "eth0")
    assert refused.value.code == code


_ENTRIES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "net1", "net2", "x"])), max_size=5)


@given(st.lists(_ENTRIES, min_size=1, max_size=4))
def test_after_any_annotations_the_pod_has_what_the_last_one_asks_for(history: list[Any]) -> None:
    have: list[Row] = []
    for entries in history:
        wanted = asked(",".join(f"{name}@{ifname}" if ifname else name for name, ifname in entries))
        try:
            change = changes(have, wanted, "eth0")
        except NetworkRefused:
            continue
        now = after(have, change)
        names = [row.call.ifname for row in now]
        assert len(set(names)) == len(names)
        assert sorted(row.reference for row in now) == sorted(f"d/{one.name}" for one in wanted)
        assert {one.interface for one in wanted} - {""} <= set(names)
        assert not changes(now, wanted, "eth0"), "there is nothing left to do"
        have = now
