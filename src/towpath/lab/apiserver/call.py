"""One request as the verbs see it (``Call``), its answer (``Reply``), and what all share (``Server``)."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from towpath.api.protobuf import Malformed
from towpath.lab.apiserver.asked import Asked
from towpath.lab.apiserver.errors import ApiError, Obj, bad_request, unsupported_media
from towpath.lab.apiserver.paths import Target
from towpath.lab.apiserver.resources import Registry, Resource
from towpath.lab.apiserver.schema import protobuf
from towpath.lab.apiserver.schema.custom import CustomSchema
from towpath.lab.apiserver.schema.types import types
from towpath.lab.apiserver.services import Allocator
from towpath.lab.apiserver.store import Store, encode

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: a row of tokens.csv or a service account."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()


@dataclass(slots=True)
class Server:
    """What all requests share. ``now`` gives seconds since the epoch; ``kubelets`` is DIR/nodes."""

    store: Store
    registry: Registry
    tokens: dict[str, User]
    services: Allocator
    kubelets: Path
    now: Callable[[], float] = time.time
    snapshots: dict[str, Any] = field(default_factory=dict)  # of paged lists, by their token's id
    asked: Asked = field(default_factory=dict)
    schemas: dict[tuple[str, str, str], CustomSchema] = field(default_factory=dict)  # group, version, plural
    documents: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # OpenAPI and discovery, rendered

    def timestamp(self) -> str:
        """Now, as metav1.Time is written: RFC 3339, whole seconds, UTC."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now()))


@dataclass(slots=True)
class Call:
    """A request to a resource. ``body`` is raw; ``query`` holds the first value of each parameter."""

    resource: Resource
    target: Target
    query: Mapping[str, str]
    user: User
    accept: str = ""
    content_type: str = ""
    body: bytes = b""
    agent: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be stored."""
        return self.query.get("dryRun") == "All"

    def refused_name(self) -> tuple[str, str, str]:
        """Group, plural and name, for messages."""
        return self.resource.group, self.resource.plural, self.target.name

    def decode(self) -> Obj:
        """The body as an object. Raises ApiError 400, 415."""
        return decode_body(self.body, self.content_type)


@dataclass(slots=True)
class Reply:
    """A complete answer."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


def reply(obj: Any, status: int = 200) -> Reply:
    """An answer of one JSON value."""
    return Reply(encode(obj), status)


def decode_body(body: bytes, content_type: str) -> Obj:
    """JSON, or YAML where the content type says so (or is missing). Raises ApiError 400, 415."""
    if "protobuf" in content_type:
        return _decode_protobuf(body, content_type)
    try:
        value = msgspec.json.decode(body)
    except RecursionError as e:
        raise bad_request("the object provided is nested too deeply") from e
    except msgspec.DecodeError as e:
        if "yaml" not in content_type:
            raise bad_request(
                f"the object provided is unrecognized (must be of type application/json): {e}"
            ) from e
        value = decode_yaml(body)
    if not isinstance(value, dict):
        raise bad_request("the object provided is unrecognized: it must be a JSON object")
    return value


@cache
def _kinds() -> dict[tuple[str, str], str]:
    """Types by apiVersion and kind, for protobuf; DeleteOptions come under any version."""
    kinds = {}
    for found in types().values():
        parts = found.definition.split(".")
        group, version = parts[3], parts[4] if len(parts) > 4 else ""
        served = {"core": "", "rbac": "rbac.authorization.k8s.io"}.get(group)
        if served is None:
            named = group in ("apps", "batch", "policy", "autoscaling")
            served = group if named else f"{group}.k8s.io"
        kinds[f"{served}/{version}" if served else version, found.short] = found.name
    return kinds | {("", "DeleteOptions"): "meta.DeleteOptions"}


def _decode_protobuf(body: bytes, content_type: str) -> Obj:
    try:
        return protobuf.decode_body(body, _kinds())
    except Malformed as e:
        raise unsupported_media(f"{content_type}: {e}", [JSON, "application/yaml"]) from e


def decode_yaml(body: bytes) -> Any:
    """YAML with timestamps left as text. Raises ApiError 400."""
    import yaml

    class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
        pass

    Loader.yaml_implicit_resolvers = {
        k: [(t, r) for t, r in v if t != "tag:yaml.org,2002:timestamp"]
        for k, v in Loader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(body, Loader=Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise bad_request(f"error parsing YAML: {e}") from e


def new_uid() -> str:
    """A fresh object UID."""
    return str(uuid.uuid4())


def check_dry_run(call: Call) -> None:
    """Raises ApiError 400 for a ``dryRun`` that is not ``All``."""
    if call.query.get("dryRun", "All") not in ("", "All"):
        raise ApiError(
            422, "Invalid", f'dryRun: Unsupported value: "{call.query["dryRun"]}": supported values: "All"'
        )
