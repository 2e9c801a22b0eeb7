"""The lease store seen from another process, while an agent may have it open."""

import sqlite3
from ipaddress import ip_address
from pathlib import Path

import msgspec

from towpath.ipam import codec
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.schema import explain
from towpath.model.attachment import Attachment
from towpath.model.net import Addr


class Leases(msgspec.Struct, frozen=True, kw_only=True):
    """``attachments`` that can be read; ``last`` address that the round robin of each range handed out."""

    attachments: tuple[Attachment, ...] = ()
    last: tuple[Addr, ...] = ()


def read_leases(path: Path) -> Leases:
    """What the store says now; nothing where there is none. Raises LeaseStoreError."""
    if not path.exists():
        return Leases()
    try:
        db = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None, timeout=5.0)
        try:
            db.execute("PRAGMA query_only = 1")
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'attachments'").fetchone():
                return Leases()  # whoever began to make it was killed
            rows = db.execute("SELECT body FROM attachments").fetchall()
            cursors = db.execute("SELECT last FROM cursors").fetchall()
        finally:
            db.close()
        return Leases(
            attachments=tuple(codec.decode(body) for (body,) in rows),
            last=tuple(ip_address(text) for (text,) in cursors),
        )
    except sqlite3.Error as error:
        raise explain("read lease store", path, error) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise LeaseStoreError("read lease store", str(path), f"a row cannot be read: {error}") from error
