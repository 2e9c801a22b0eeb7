"""Status conditions: built and replaced without touching what did not change. Pure."""

from collections.abc import Iterable

from towpath.lab.controllers.objects_meta import Body, Condition, format_time


def make(
    type_: str, status: str, reason: str, message: str, now: float, previous: Condition | None = None
) -> Condition:
    """A condition that keeps the transition time of ``previous`` if the status is the same."""
    stamp = format_time(now)
    kept = previous.last_transition_time if previous and previous.status == status else None
    return Condition(type_, status, reason, message, kept or stamp, stamp)


def replaced(conditions: Iterable[Condition] | None, new: Condition | None, type_: str) -> list[Condition]:
    """The conditions with that of ``type_`` exchanged for ``new`` (None: removed)."""
    others = [c for c in conditions or () if c.type != type_]
    return [*others, new] if new is not None else others


def as_body(condition: Condition) -> Body:
    """As the API wants it, without empty fields."""
    fields = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastUpdateTime": condition.last_update_time,
        "lastTransitionTime": condition.last_transition_time,
        "lastHeartbeatTime": condition.last_heartbeat_time,
    }
    return {k: v for k, v in fields.items() if v is not None}
