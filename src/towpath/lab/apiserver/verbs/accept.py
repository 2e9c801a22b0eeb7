"""What an object goes through before it is stored: decoding checks, defaults, admission, validation."""

from towpath.lab.apiserver.admission import ADMIT
from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.defaults.registry import DEFAULTS
from towpath.lab.apiserver.errors import Obj, bad_request, invalid
from towpath.lab.apiserver.schema.check import decode_check, strict_error
from towpath.lab.apiserver.validation.metadata import metadata_causes, metadata_update_causes
from towpath.lab.apiserver.validation.registry import VALIDATORS

# kinds whose metadata.generation counts changes of the spec
GENERATION = frozenset(
    ("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job", "CronJob", "NetworkPolicy", "Ingress",
     "PodDisruptionBudget", "EndpointSlice", "PriorityClass", "CustomResourceDefinition")
)  # fmt: skip


def check_fields(server: Server, call: Call, obj: Obj, type_name: str = "") -> None:
    """Drops unknown fields, refusing or warning of them as ``fieldValidation`` says. Raises ApiError 400."""
    r = call.resource
    mode = call.query.get("fieldValidation") or "Warn"
    if mode not in ("Strict", "Warn", "Ignore"):
        raise bad_request(
            f'fieldValidation: Unsupported value: "{mode}": supported values: "Ignore", "Strict", "Warn"'
        )
    if type_name or r.type:
        unknown = decode_check(type_name or r.type, r.api_version, obj)
    else:
        unknown = decode_check("meta.Bare", r.api_version, {"metadata": obj.get("metadata") or {}})
        custom = server.schemas.get((r.group, r.version, r.plural))
        unknown = unknown + (custom.prune(obj) if custom else [])
    if unknown and mode == "Strict":
        raise strict_error(r.kind, r.api_version, unknown)
    if mode == "Warn":
        call.warnings += [f'unknown field "{p}"' for p in unknown]


def fill(server: Server, call: Call, obj: Obj, old: Obj | None) -> None:
    """Defaults and admission, in place. Raises ApiError."""
    r = call.resource
    if default := DEFAULTS.get(r.type):
        default(obj)
    elif custom := server.schemas.get((r.group, r.version, r.plural)):
        custom.default(obj)
    if admit := ADMIT.get(r.type):
        admit(server, call, obj, old)


def validate(server: Server, call: Call, obj: Obj, old: Obj | None) -> None:
    """Raises ApiError 422 with every cause."""
    r = call.resource
    causes = metadata_causes(obj, r)
    if old is not None:
        causes += metadata_update_causes(obj, old)
    if found := VALIDATORS.get(r.type):
        causes += found(obj, old)
    elif custom := server.schemas.get((r.group, r.version, r.plural)):
        causes += custom.validate(obj, old)
    if causes:
        raise invalid(r.group, r.kind, obj["metadata"].get("name") or "", causes)


def counts_generation(call: Call) -> bool:
    """Whether the kind has a generation: some builtin ones, all custom ones."""
    return not call.resource.type or call.resource.kind in GENERATION
