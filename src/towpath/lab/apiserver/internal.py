"""Objects that the server makes itself, by the same way as everybody's."""

from towpath.lab.apiserver.call import Call, Server, User
from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.paths import Target
from towpath.lab.apiserver.store import Stored
from towpath.lab.apiserver.verbs.create import create_object


def create_internal(
    server: Server, user: User, api_version: str, kind: str, namespace: str, obj: Obj
) -> Stored | None:
    """Create; None when it is there already. Raises ApiError, StoreError."""
    resource = server.registry.kind(api_version, kind)
    if resource is None:
        raise LookupError(f"{api_version} {kind} is not served")
    target = Target(resource.group, resource.version, resource.plural, namespace)
    call = Call(resource, target, {}, user)
    return create_object(server, call, {"apiVersion": api_version, "kind": kind, **obj})
