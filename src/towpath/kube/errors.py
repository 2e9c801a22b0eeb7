"""What can go wrong between Towpath and a Kubernetes API server.

KubeError
├── KubeConfigError            kubeconfig, service account or token file unusable
└── ApiError                   a request failed: operation, object, hint
    ├── Unreachable            no answer: connect, TLS, time-out, stream cut
    ├── Malformed              an answer that is not what the API promises
    └── ApiRefused             an answer with a status of 400 and above
        ├── Unauthorized 401, Forbidden 403, NotFound 404
        ├── Conflict 409 (the object changed meanwhile) ── AlreadyExists 409
        ├── Gone 410 (resource version or continue token expired)
        ├── Invalid 422, TooManyRequests 429, ServerError 5xx
"""

import msgspec


class KubeError(Exception):
    """Base of everything ``towpath.kube`` raises."""


class KubeConfigError(KubeError):
    """A kubeconfig, service account or token of no use. ``source`` is the file, ``hint`` the fix."""

    def __init__(self, source: str, problem: str, hint: str) -> None:
        super().__init__(f"{source}: {problem} ({hint})")
        self.source, self.problem, self.hint = source, problem, hint


class ApiError(KubeError):
    """A request that did not give what was asked for.

    ``operation`` the verb ("list", "watch", "patch"…), ``object`` what it was about ("nodes/n1"),
    ``reason`` the server's or the system's words, ``hint`` what to do (may be empty).
    ``retry_after`` seconds the server asked to wait, 0 where it did not say.
    """

    hint_by_default = ""

    def __init__(
        self, operation: str, object: str, reason: str, hint: str = "", retry_after: float = 0.0
    ) -> None:
        hint = hint or self.hint_by_default
        super().__init__(f"{operation} {object}: {reason}" + (f" ({hint})" if hint else ""))
        self.operation, self.object, self.reason = operation, object, reason
        self.hint, self.retry_after = hint, retry_after


class Unreachable(ApiError):
    """The server gave no (complete) answer."""

    hint_by_default = "is the API server up, and its address right and routable from here?"


class Malformed(ApiError):
    """The server answered something that is not a Kubernetes API answer."""

    hint_by_default = "is this address a Kubernetes API server, and no proxy or portal before it?"


class ApiRefused(ApiError):
    """The server refused. ``status`` is the HTTP status, ``status_reason`` Kubernetes' ("NotFound")."""

    status = 0
    status_reason = ""


class BadRequest(ApiRefused):
    """400 and every 4xx that has no class of its own."""


class Unauthorized(ApiRefused):
    """401: the credential is missing, expired or unknown."""

    hint_by_default = "check the token or client certificate in use"


class Forbidden(ApiRefused):
    """403: the identity lacks the right."""

    hint_by_default = "check RBAC of the identity in use"


class NotFound(ApiRefused):
    """404: no such object, or no such resource type."""


class Conflict(ApiRefused):
    """409: somebody else changed the object; read again and retry."""


class AlreadyExists(Conflict):
    """409 on create: an object of this name is there."""


class Gone(ApiRefused):
    """410: the resource version or continue token is of no use (any more); list again."""


class Invalid(ApiRefused):
    """422: the server's validation refused the object."""


class TooManyRequests(ApiRefused):
    """429: come back after ``retry_after`` seconds."""


class ServerError(ApiRefused):
    """5xx: the server's own failure."""


class _Cause(msgspec.Struct, frozen=True):
    reason: str | None = None


class _Details(msgspec.Struct, frozen=True):
    causes: list[_Cause] | None = None


class _Status(msgspec.Struct, frozen=True):
    """``metav1.Status`` as far as it is read here."""

    kind: str = ""
    message: str | None = None
    reason: str | None = None
    code: int | None = None
    details: _Details | None = None

    def from_the_future(self) -> bool:
        """Whether the server has never heard of the version asked for: its store was restored from a backup.

        It answers 504 then; to wait, as one does after a 504, would be to wait for ever.
        """
        causes = (self.details.causes if self.details else None) or []
        return any(cause.reason == "ResourceVersionTooLarge" for cause in causes) or (
            (self.message or "").startswith("Too large resource version")
        )


_BY_STATUS: dict[int, type[ApiRefused]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def refused(operation: str, object: str, status: int, body: bytes, retry_after: float = 0.0) -> ApiRefused:
    """The typed error for an answer of ``status`` whose body may be a ``metav1.Status``.

    ``status`` 0 takes the code from the body (an ERROR event of a watch).
    """
    try:
        answer = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        answer = _Status(message=body[:200].decode("utf-8", "replace").strip() or None)
    status = status or answer.code or 500
    cls = ServerError if status >= 500 else _BY_STATUS.get(status, BadRequest)
    if status == 409 and answer.reason == "AlreadyExists":
        cls = AlreadyExists
    if answer.from_the_future():
        cls = Gone
    message = answer.message or answer.reason or "no explanation given"
    error = cls(operation, object, f"{message} [HTTP {status}]", retry_after=retry_after)
    error.status, error.status_reason = status, answer.reason or ""
    return error


def words(path: str) -> str:
    """ "/apis/apps/v1/namespaces/x/pods/p" as "x/pods/p": what people call it."""
    parts = path.strip("/").split("/")
    rest = parts[3:] if parts[0] == "apis" else parts[2:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[1:]
    return "/".join(rest) or path
