"""Whether policies mean the same to the engine that comes as to the one that runs."""

from collections.abc import Iterator

from towpath.inventory.cluster import Inventory
from towpath.model.finding import Finding
from towpath.preflight import engines
from towpath.preflight.engines import Engine, Verdicts
from towpath.preflight.situation import Check, Situation, Untold, finding

_ORDERED = ("globalnetworkpolicies.crd.projectcalico.org", "networkpolicies.crd.projectcalico.org")
_FIX = "towpath policy matrix and policy explain show which policies; change them so that both engines agree"


def _engines(at: Situation) -> Iterator[Finding]:
    """29: who reaches whom stays as it is."""
    wanted, runs = at.target.components.get("calico", ""), running(at.inventory)
    if not wanted or not runs:
        return
    try:
        before, after = engines.calico(runs), engines.calico(wanted)
    except ValueError as odd:
        raise Untold(f"which Calico runs: {odd}") from odd
    if engines.alike(before, after):
        return
    if at.verdicts is not None:
        yield from told(at.verdicts)
        return
    yield from by_kinds(before, after, at.inventory.objects)
    if before.era != after.era and any(at.inventory.objects.get(name) for name in _ORDERED):
        raise Untold(
            "policies of equal order change places; only the live cluster can tell whether it matters"
        )


def running(inventory: Inventory) -> str:
    """The tag of Calico's image in the network's DaemonSet; empty where there is none."""
    images = [image for part in inventory.components for image in part.wanted.values()]
    return next((image.tag for image in images if image.name == "hardened-calico"), "")


def told(found: Verdicts) -> Iterator[Finding]:
    """One finding of all that changes."""
    if found.total:
        more = f" and {found.total - len(found.changes)} more" if found.total > len(found.changes) else ""
        yield finding(
            "TP7342",
            "policies",
            f"{found.total} verdicts differ between {found.before} and {found.after}: "
            f"{'; '.join(found.changes)}{more}",
            _FIX,
        )


def by_kinds(before: Engine, after: Engine, objects: dict[str, int]) -> Iterator[Finding]:
    """Where nobody could compare verdicts: kinds that one of the two does not enforce."""
    for kind in sorted(before.without ^ after.without):
        if count := objects.get(engines.DEFINITIONS[kind]):
            new, old = (after, before) if kind in before.without else (before, after)
            yield finding(
                "TP7342",
                f"CustomResourceDefinition/{engines.DEFINITIONS[kind]}",
                f"{count} objects are enforced by {new.name}, not by {old.name}",
                _FIX,
            )


ENGINE_CHECKS = (Check(29, "policies mean the same to the engine that comes", _engines),)
