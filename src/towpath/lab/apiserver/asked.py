"""What each client asked for, as RBAC names it: a test compares it with what an installation grants."""

from collections.abc import Mapping

import msgspec

from towpath.lab.apiserver.paths import Target

Asked = dict[str, set[tuple[str, str, str]]]
"""By client, and by who it was: verb, group, resource with its subresource (``pods/status``)."""

PATH = "/lab/asked"
_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_NAMED = {**_WRITES, "GET": "get", "HEAD": "get", "DELETE": "delete"}
_COLLECTION = {**_WRITES, "GET": "list", "HEAD": "list", "DELETE": "deletecollection"}


def note(
    asked: Asked, agent: str, user: str, method: str, target: Target, query: Mapping[str, str]
) -> None:
    """A request of ``user`` by a client whose User-Agent is ``agent``; after a slash there is its place."""
    watched = not target.name and query.get("watch") in ("true", "1")
    verb = "watch" if watched else (_NAMED if target.name else _COLLECTION).get(method, method.lower())
    resource = f"{target.plural}/{target.subresource}" if target.subresource else target.plural
    for who in (agent.partition("/")[0], user):
        asked.setdefault(who, set()).add((verb, target.group, resource))


def document(asked: Asked) -> bytes:
    """As JSON, sorted."""
    return msgspec.json.encode({client: sorted(asked[client]) for client in sorted(asked)})
