"""Subresources other than status, by name; and collections that store nothing, by kind."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from towpath.lab.apiserver.call import Call, Reply, Server
from towpath.lab.apiserver.sub import kubelet, pods, reviews, scale

Serve = Callable[[Server, Call, web.Request], Awaitable[Reply | web.StreamResponse]]

SUBRESOURCES: dict[str, Serve] = {
    "attach": kubelet.attach,
    "binding": pods.binding,
    "ephemeralcontainers": pods.ephemeral_containers,
    "eviction": pods.eviction,
    "exec": kubelet.execute,
    "finalize": pods.finalize,
    "log": kubelet.log,
    "scale": scale.scale,
    "token": reviews.token,
}

TRANSIENT: dict[str, Callable[[Server, Call], Reply]] = {
    "Binding": pods.bind_by_collection,
    **dict.fromkeys(
        (
            "TokenReview",
            "SelfSubjectReview",
            "SelfSubjectAccessReview",
            "SelfSubjectRulesReview",
            "SubjectAccessReview",
            "LocalSubjectAccessReview",
        ),
        reviews.review,
    ),
}
