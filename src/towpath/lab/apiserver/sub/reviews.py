"""Reviews and tokens: everybody who is let in may do everything."""

import secrets
import time

from aiohttp import web

from towpath.lab.apiserver.call import Call, Reply, Server, User, reply
from towpath.lab.apiserver.errors import Obj, bad_request, method_not_allowed
from towpath.lab.apiserver.naming import existing, typed_body

TOKEN_SECONDS = 3600


def user_info(user: User) -> Obj:
    """``authentication/v1 UserInfo``."""
    info: Obj = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    return info


def review(server: Server, call: Call) -> Reply:
    """POST of any kind of review. Raises ApiError 400."""
    obj = typed_body(call, call.resource.type, call.resource.kind, call.resource.api_version)
    obj.setdefault("metadata", {}).setdefault("creationTimestamp", None)
    match call.resource.kind:
        case "TokenReview":
            user = server.tokens.get(str((obj.get("spec") or {}).get("token") or ""))
            obj["status"] = {"authenticated": True, "user": user_info(user)} if user else {"user": {}}
        case "SelfSubjectReview":
            obj["status"] = {"userInfo": user_info(call.user)}
        case "SelfSubjectRulesReview":
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
            obj["status"] = {"resourceRules": [everything], "nonResourceRules": [paths], "incomplete": False}
        case _:
            obj["status"] = {"allowed": True, "reason": "the lab allows everything to whoever has a token"}
    return reply(obj, 201)


async def token(server: Server, call: Call, request: web.Request) -> Reply:
    """POST of a TokenRequest for a service account; the token lives as long as this process. ApiError 404."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    account = existing(server, call)
    obj = typed_body(call, "authentication.TokenRequest", "TokenRequest", "authentication.k8s.io/v1")
    spec = obj.setdefault("spec", {})
    seconds = spec["expirationSeconds"] = spec.get("expirationSeconds") or TOKEN_SECONDS
    if not isinstance(seconds, int) or seconds < 600:
        raise bad_request(
            "spec.expirationSeconds: Invalid value: may not specify a duration less than 10 minutes"
        )
    issued = secrets.token_urlsafe(32)
    name = f"system:serviceaccount:{account.namespace}:{account.name}"
    groups = (
        "system:serviceaccounts", f"system:serviceaccounts:{account.namespace}", "system:authenticated",
    )  # fmt: skip
    server.tokens[issued] = User(name, account.obj["metadata"]["uid"], groups)
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(server.now() + seconds))
    obj["metadata"] = {"name": account.name, "namespace": account.namespace}
    obj["status"] = {"token": issued, "expirationTimestamp": until}
    return reply(obj, 201)
