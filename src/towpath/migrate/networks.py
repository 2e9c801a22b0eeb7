"""Carries out the steps about pods' further networks: from Multus's memory to the journal, and back."""

from pathlib import Path

from towpath.install.node import write
from towpath.migrate import multus
from towpath.migrate.multus import MultusConf, Unreadable
from towpath.migrate.node import OUR_NETWORK, Node, Stopped
from towpath.migrate.plan import TOWPATH_CONFLIST, Facts
from towpath.model.finding import Finding
from towpath.multinet.journal import FILE, Journal, Row, read_rows

_RESULTS = "results"


def remembered(conf: MultusConf, boot_id: str) -> tuple[list[Row], list[str]]:
    """What Multus began and has not ended, and what of it cannot be read. Raises OSError."""
    folder, found, problems = Path(conf.cni_dir), list[Row](), list[str]()
    results = {file.name: file.read_bytes() for file in _files(folder / _RESULTS)}
    for file in _files(folder):
        own = {name: content for name, content in results.items() if f"-{file.name}-" in name}
        try:
            found += multus.rows(file.name, file.read_bytes(), own, OUR_NETWORK, boot_id)
        except Unreadable as error:
            problems.append(f"{file}: {error}")
    return found, problems


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []


async def import_networks(node: Node, facts: Facts, *, final: bool) -> None:
    """Into the agent's journal, which nobody else may have open: the agent is held.

    Raises Stopped where the ``final`` import cannot read something; JournalError, OSError.
    """
    if facts.multus is None:
        return
    found, problems = remembered(facts.multus, node.boot_id)
    journal = Journal(node.place.state_dir / FILE)
    journal.open()
    try:
        there = {row.key for row in found}
        for row in journal.rows():
            if row.multus and row.key not in there:  # Multus has ended it since
                await journal.forget(row)
        known = {row.key for row in journal.rows()}
        await journal.begin([row for row in found if row.key not in known])
    finally:
        journal.close()
    node.place.give_store()
    if final and problems:
        fix = "move the file aside: its pod's networks are then to be released by hand when it is deleted"
        raise Stopped(*(Finding(code="TP7122", object="Multus", message=text, fix=fix) for text in problems))


def put_aside(node: Node, facts: Facts) -> None:
    """Multus's own configuration, which its pod may have written once more before it left; its memory, which
    is the journal's now. Raises Stopped, OSError.
    """
    if facts.multus is None:
        return
    node.place.put_aside(facts.multus.file)
    node.place.retire(Path(facts.multus.cni_dir))
    if (first := node.place.in_force()) != TOWPATH_CONFLIST:
        fix = "remove what writes it (towpath node handback undoes the takeover); then give the command again"
        raise Stopped(
            Finding(code="TP7102", object=first, message="has come before Towpath's again", fix=fix)
        )


def export_networks(node: Node, facts: Facts) -> None:
    """What the journal has, where Multus looks at DEL; what it has no more, Multus forgets, too.

    Raises JournalError, LeaseStoreError, OSError.
    """
    if facts.multus is None:
        return
    folder = Path(facts.multus.cni_dir)
    (folder / _RESULTS).mkdir(parents=True, exist_ok=True, mode=0o700)
    of: dict[str, list[Row]] = {att.container_id: [] for att in node.wired()}
    for row in read_rows(node.place.state_dir / FILE):
        of.setdefault(row.call.container_id, []).append(row)
    wanted = {container: multus.scratch(facts.conf.text, rows) for container, rows in of.items()}
    results = dict(multus.cache_of(row) for rows in of.values() for row in rows)
    for at, files in ((folder / _RESULTS, results), (folder, wanted)):
        for name, content in files.items():
            write(at / name, content, 0o600)
        for file in _files(at):
            if file.name not in files:
                file.unlink()
