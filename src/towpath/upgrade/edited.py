"""Whether somebody else has changed the DaemonSet in the middle of an upgrade. Pure.

While it is OnDelete that has changed no pod; but the next node would get what nobody planned.
"""

from towpath.upgrade.journal import Event, Journal, Record
from towpath.upgrade.plan import Plan
from towpath.upgrade.seen import Seen

CODE = "TP7412"
_TURNS: tuple[Event, ...] = ("cordon", "touch", "passed")


def edited(plan: Plan, journal: Journal, seen: Seen) -> str:
    """What was changed since the upgrade began, in words; empty for nothing, or what ``resume`` accepted."""
    name, records = f"DaemonSet/{plan.namespace}/{plan.daemonset}", journal.records
    known = {record.template for record in records if record.template}
    if known and seen.template not in known:
        return f"{name} was edited by somebody else: resume goes on with it as it is now"
    frozen = _last(records, "freeze")
    earlier = _last(records[:frozen], "freeze") if frozen > 0 else -1
    if earlier >= 0 and _last(records[:frozen], "template") > earlier and _told(records) < frozen:
        return (
            f"{name} got another update strategy from somebody else, which is undone: pods may have changed"
        )
    if _last(records, "template") < _told(records) < _last(records, "resume"):
        return ""  # the images are set again
    forward = _last(records, "template", "forward")
    turned = any(record.event in _TURNS for record in records[forward:]) if forward >= 0 else False
    turned = turned and forward == _last(records, "template")
    for container, (before, after) in plan.images.items():
        image = seen.images.get(container, "")
        if image not in (before, after) or (turned and image != after):
            return f"{name} was edited by somebody else: {container} has {image or 'no image'}, not {after}"
    return ""


def _last(records: tuple[Record, ...], event: Event, text: str = "") -> int:
    """Index; -1 for none. ``text``: only with that one."""
    found = [n for n, one in enumerate(records) if one.event == event and text in ("", one.text)]
    return found[-1] if found else -1


def _told(records: tuple[Record, ...]) -> int:
    """Index of the last pause that told of an edit; -1 for none."""
    return max((n for n, one in enumerate(records) if one.text.startswith(CODE)), default=-1)
