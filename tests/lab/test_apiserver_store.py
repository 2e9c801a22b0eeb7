"""The store against a model: any sequence of writes, deletions, compactions and restarts."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from towpath.lab.apiserver.store import Event, Store, StoreError

NAMES = st.sampled_from(["a", "b", "c"])
SPACES = st.sampled_from(["", "x", "y"])


class StoreModel(RuleBasedStateMachine):
    """``model`` is what the store must hold; ``seen`` every event a listener got since it began."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "s.db"
        self.model: dict[tuple[str, str], dict[str, Any]] = {}
        self.highest = 0
        self.open()

    def open(self) -> None:
        self.store = Store(self.path)
        self.began = self.store.rv
        self.seen: list[Event] = []
        self.store.listen("things", self.seen.append)

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(space=SPACES, name=NAMES, value=st.integers())
    def put(self, space: str, name: str, value: int) -> None:
        stored = self.store.put("things", space, name, {"metadata": {"name": name}, "value": value})
        assert stored.rv > self.highest
        self.highest = stored.rv
        self.model[space, name] = stored.obj

    @rule(space=SPACES, name=NAMES)
    def remove(self, space: str, name: str) -> None:
        if (space, name) in self.model:
            gone = self.store.remove("things", space, name)
            assert gone.rv > self.highest
            self.highest = gone.rv
            del self.model[space, name]
        else:
            with pytest.raises(KeyError):
                self.store.remove("things", space, name)

    @rule()
    def compact(self) -> None:
        self.store.compact()
        assert self.store.since("things", self.store.rv) is not None
        self.began = self.store.rv
        self.seen.clear()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.open()

    @invariant()
    def holds_the_model(self) -> None:
        listed = [(s.namespace, s.name, s.obj) for s in self.store.list("things")]
        assert listed == [(*k, v) for k, v in sorted(self.model.items())]
        assert self.store.rv >= self.highest

    @invariant()
    def history_is_what_listeners_saw(self) -> None:
        found = self.store.since("things", self.began)
        assert found is not None
        assert list(found) == self.seen
        assert self.began == 0 or self.store.since("things", self.began - 1) is None


TestStore = StoreModel.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_purging_keeps_the_highest_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.lab.apiserver.store.PURGE_AT", 5)
    store = Store(tmp_path / "s.db")
    for i in range(20):
        store.put("things", "", f"n{i}", {"metadata": {}})
        store.remove("things", "", f"n{i}")
    highest = store.rv
    store.close()
    store = Store(tmp_path / "s.db")
    assert store.rv == highest
    store.close()


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match=r"s\.db"):
        Store(tmp_path / "s.db")
    with pytest.raises(StoreError):
        Store(tmp_path / "none" / "s.db")


def test_a_full_disk_refuses_the_write_and_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    store.put("things", "", "a", {"metadata": {}, "v": 1})
    store._db.execute("PRAGMA max_page_count=8")
    seen: list[Event] = []
    store.listen("things", seen.append)
    with pytest.raises(StoreError, match="full"):
        for i in range(100):
            store.put("things", "", f"n{i}", {"metadata": {}, "v": "x" * 2000})
    rv, listed = store.rv, [s.name for s in store.list("things")]
    assert len(seen) == len(listed) - 1
    with pytest.raises(StoreError):
        store.put("things", "", "a", {"metadata": {}, "v": "y" * 50000})
    assert (store.rv, store.get("things", "", "a").obj["v"]) == (rv, 1)  # type: ignore[union-attr]
    store.close()
    again = Store(tmp_path / "s.db")
    assert (again.rv, [s.name for s in again.list("things")]) == (rv, listed)
    again.close()
