"""The API server's one error tree: every refusal is a ``metav1.Status`` with upstream's words."""

from typing import Any

Obj = dict[str, Any]
Cause = dict[str, str]


class ApiError(Exception):
    """A request that is refused. ``status()`` is the body; ``code`` the HTTP status.

    ``details`` are those of ``metav1.StatusDetails``; ``headers`` go on the response (Retry-After, Allow).
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Obj | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details
        self.headers = headers or {}

    def status(self) -> Obj:
        """``metav1.Status`` as upstream answers it."""
        body: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            body["details"] = self.details
        body["code"] = self.code
        return body


def qualified(group: str, plural: str) -> str:
    """``deployments.apps``, ``pods``: how messages name a resource."""
    return f"{plural}.{group}" if group else plural


def _details(group: str, kind: str, name: str, causes: list[Cause] | None = None) -> Obj:
    details: Obj = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    if causes:
        details["causes"] = causes
    return details


def not_found(group: str, plural: str, name: str) -> ApiError:
    """404 for an object that does not exist."""
    return ApiError(
        404, "NotFound", f'{qualified(group, plural)} "{name}" not found', _details(group, plural, name)
    )


def no_such_path() -> ApiError:
    """404 for a path or resource type that the server does not serve."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """409 for a name that is taken."""
    return ApiError(
        409,
        "AlreadyExists",
        f'{qualified(group, plural)} "{name}" already exists',
        _details(group, plural, name),
    )


def conflict(group: str, plural: str, name: str, why: str = "") -> ApiError:
    """409 for a lost race; ``why`` replaces the usual sentence about the modified object."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(group, plural, name))


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> ApiError:
    """422 with one cause a field; ``causes`` come from ``validation.field``."""
    parts = [f"{c['field']}: {c['message']}" for c in causes]
    text = parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"
    shown = f"{kind}.{group}" if group else kind
    return ApiError(
        422, "Invalid", f'{shown} "{name}" is invalid: {text}', _details(group, kind, name, causes)
    )


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


class Unmarshalled(ApiError):
    """400 for a value of the wrong type."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str, causes: list[Cause] | None = None) -> ApiError:
    """403."""
    message = f'{qualified(group, plural)} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, _details(group, plural, name, causes))


def unauthorized() -> ApiError:
    """401."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def method_not_allowed(method: str) -> ApiError:
    """405."""
    return ApiError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        {},
        {"Allow": method},
    )


def unsupported_media(got: str, accepted: list[str]) -> ApiError:
    """415."""
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: "
        f"{', '.join(accepted)}" + (f" (got {got})" if got else ""),
    )


def expired(message: str) -> ApiError:
    """410 for a resourceVersion or continue token out of the history's window."""
    return ApiError(410, "Expired", message)


def too_large_version(asked: int, current: int) -> ApiError:
    """504 for a resourceVersion from the future."""
    return ApiError(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
        {"Retry-After": "1"},
    )


def too_many(message: str, causes: list[Cause] | None = None) -> ApiError:
    """429, for evictions that a disruption budget forbids."""
    return ApiError(429, "TooManyRequests", message, {"causes": causes} if causes else {})


def too_large(limit: int) -> ApiError:
    """413."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def internal(message: str) -> ApiError:
    """500."""
    return ApiError(500, "InternalError", f"Internal error occurred: {message}")
