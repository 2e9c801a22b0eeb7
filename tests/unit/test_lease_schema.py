"""The lease store across releases: what is on the disk is pinned, and the minor before and after reads it."""

import sqlite3
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest

from towpath.ipam import codec
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.schema import VERSION
from towpath.ipam.store import LeaseStore
from towpath.model.attachment import Attachment, Bandwidth, PodRef, PortMapping

GOLDEN = Path(__file__).parents[1] / "golden" / "leases.sql"
FULL = Attachment(
    container_id="c1",
    ifname="eth0",
    network="towpath",
    netns="/run/netns/c1",
    host_ifname="cali0123456789a",
    addresses=(ip_address("10.42.1.2"), ip_address("fd00:10:42:1::2")),
    mac="02:00:00:00:00:01",
    mtu=1450,
    boot_id="boot",
    request_id="r1",
    pod=PodRef(namespace="default", name="a", uid="u1"),
    ports=(PortMapping(host_port=8080, container_port=80, host_ip=ip_address("192.0.2.1")),),
    bandwidth=Bandwidth(ingress_rate=8_000_000, ingress_burst=800_000),
    routes=(ip_network("192.0.2.0/24"),),
    aliases=("a",),
)
BARE = msgspec.structs.replace(
    FULL,
    container_id="c2",
    host_ifname="cali00000000002",
    addresses=(ip_address("10.42.1.3"),),
    request_id="",
    pod=None,
    ports=(),
    bandwidth=None,
    routes=(),
    aliases=(),
)


def store(folder: Path) -> LeaseStore:
    return LeaseStore(folder / "leases.db", boot_id="boot", clock=lambda: 100.0)


async def fill(folder: Path) -> None:
    made = store(folder)
    made.open()
    for att in (FULL, BARE):
        await made.add(att, ())
    await made.release("c2", "eth0")
    await made.add(BARE, ())
    made.close()


def dump(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "leases.db")) as db:
        return "\n".join(db.iterdump()) + "\n"


def from_golden(folder: Path, *more: str) -> None:
    with closing(sqlite3.connect(folder / "leases.db")) as db:
        db.executescript(GOLDEN.read_text())
        for statement in more:
            db.execute(statement)
        db.commit()


async def test_what_is_on_the_disk_is_pinned(tmp_path: Path) -> None:
    """If this fails, a release on the other side of an upgrade may not read what this one writes.

    An addition that older releases pass over (see ``ipam.schema``): write the file anew. Anything else needs
    a new version, read by one minor before any writes it.
    """
    await fill(tmp_path)
    assert dump(tmp_path) == GOLDEN.read_text()


async def test_an_older_state_is_taken_over(tmp_path: Path) -> None:
    from_golden(tmp_path)
    opened = store(tmp_path)
    opened.open()
    assert set(opened.attachments()) == {FULL, BARE}
    assert set(opened.leased()) == {*FULL.addresses, *BARE.addresses}
    await opened.release("c1", "eth0")
    opened.close()


async def test_a_row_with_no_more_than_what_it_must_have_is_read(tmp_path: Path) -> None:
    least = codec.encode(BARE)
    assert set(msgspec.json.decode(least)) == {
        *("container_id", "ifname", "network", "netns", "host_ifname", "addresses", "mac", "mtu", "boot_id")
    }
    assert codec.decode(least) == BARE


async def test_a_newer_minors_state_is_taken_over_used_and_given_back(tmp_path: Path) -> None:
    """It has added a table, a column and a key, which this release passes over, and keeps."""
    from_golden(
        tmp_path,
        "ALTER TABLE attachments ADD COLUMN tier TEXT NOT NULL DEFAULT 'none'",
        "ALTER TABLE leases ADD COLUMN since REAL",
        "CREATE TABLE blocks (cidr TEXT PRIMARY KEY)",
        "INSERT INTO blocks VALUES ('10.42.1.0/26')",
        "UPDATE attachments SET body = json_insert(body, '$.hairpin', 1) WHERE container_id = 'c1'",
    )
    opened = store(tmp_path)
    opened.open()
    assert set(opened.attachments()) == {FULL, BARE}
    assert opened.damaged == ()
    third = msgspec.structs.replace(BARE, container_id="c3", addresses=(ip_address("10.42.1.4"),))
    await opened.add(third, ())
    await opened.release("c2", "eth0")
    opened.close()
    with closing(sqlite3.connect(tmp_path / "leases.db")) as db:
        assert db.execute("SELECT cidr FROM blocks").fetchall() == [("10.42.1.0/26",)]
        rows = dict(db.execute("SELECT container_id, tier FROM attachments").fetchall())
        assert rows == {"c1": "none", "c3": "none"}
        (body,) = db.execute("SELECT body FROM attachments WHERE container_id = 'c1'").fetchone()
        assert msgspec.json.decode(body)["hairpin"] == 1


def test_a_version_that_would_be_misread_is_refused_and_left_alone(tmp_path: Path) -> None:
    from_golden(tmp_path, f"UPDATE schema SET version = {VERSION + 1}")
    before = (tmp_path / "leases.db").read_bytes()
    opened = store(tmp_path)
    with pytest.raises(LeaseStoreError, match=f"schema is version {VERSION + 1}") as caught:
        opened.open()
    assert not caught.value.damaged, "it must not be put aside"
    assert (tmp_path / "leases.db").read_bytes()[100:] == before[100:]


async def test_a_lost_file_is_put_aside_and_rebuilt(tmp_path: Path) -> None:
    await fill(tmp_path)
    path = tmp_path / "leases.db"
    path.write_bytes(b"\0garbage" * 4096)
    opened = store(tmp_path)
    with pytest.raises(LeaseStoreError) as caught:
        opened.open()
    assert caught.value.damaged
    assert opened.lost
    assert opened.known() is None
    aside = opened.rebuild((FULL, BARE))
    assert aside.read_bytes().startswith(b"\0garbage")
    assert not opened.problem
    assert set(opened.attachments()) == {FULL, BARE}
    # And one that is lost while it is open: memory knows.
    known = opened.known()
    assert known is not None
    second = opened.rebuild(known)
    assert opened.aside() == (aside, second)
    await opened.release("c1", "eth0")
    opened.close()
    again = store(tmp_path)
    again.open()
    assert again.attachments() == (BARE,)
    again.close()
