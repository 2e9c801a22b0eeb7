"""Reads a URL path of the Kubernetes API: which group, version, namespace, resource, object, subresource."""

from dataclasses import dataclass

from towpath.lab.apiserver.errors import no_such_path


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. ``namespace`` "" means none (or, for a namespaced resource, all)."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse(parts: list[str]) -> Target:
    """``parts`` are the path's segments, decoded, from ``api`` or ``apis`` on; needs a resource in them.

    Raises ApiError 404 for a path that has no such shape.
    """
    if parts[0] == "api":
        group, rest = "", parts[1:]
    else:
        group, rest = parts[1], parts[2:]
    version, rest = rest[0], rest[1:]
    namespace = ""
    if (
        len(rest) > 2
        and rest[0] == "namespaces"
        and not (len(rest) == 3 and rest[2] in ("status", "finalize"))
    ):
        namespace, rest = rest[1], rest[2:]
    if not 1 <= len(rest) <= 3 or "" in rest:
        raise no_such_path()
    plural, name, subresource = (*rest, "", "")[:3]
    return Target(group, version, plural, namespace, name, subresource)
