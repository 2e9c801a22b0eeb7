"""CustomResourceDefinitions: defaults, conditions, and the resources they bring while they exist."""

from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.errors import ApiError, Cause, Obj
from towpath.lab.apiserver.printers.custom import json_path
from towpath.lab.apiserver.resources import STATUS_VERBS, Resource, Subresource, version_order
from towpath.lab.apiserver.schema.check import decode_check
from towpath.lab.apiserver.schema.custom import CustomSchema
from towpath.lab.apiserver.store import Event
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.field import immutable, required, unsupported, wrong

BUCKET = "apiextensions.k8s.io/customresourcedefinitions"
APPROVAL = "api-approved.kubernetes.io"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_KEYS_TEXT = (
    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
)
_APPROVAL_TEXT = (
    f'protected groups must have approval annotation "{APPROVAL}", '
    "see https://github.com/kubernetes/enhancements/pull/1111"
)


def default_crd(obj: Obj) -> None:
    """Names that follow from others; no conversion."""
    spec = obj.setdefault("spec", {})
    found = spec.setdefault("names", {})
    kind = found.get("kind") or ""
    found.setdefault("singular", kind.lower())
    found.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})


def admit_crd(server: Server, call: Call, crd: Obj, old: Obj | None) -> None:
    """The conditions that upstream's controllers would set a moment later."""
    if call.target.subresource:
        return
    spec, now = crd["spec"], server.timestamp()
    status = crd.setdefault("status", {})
    conditions = [
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ]
    had = {c.get("type") for c in status.get("conditions") or ()}
    status["conditions"] = list(status.get("conditions") or ()) + [
        {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
        for kind, reason, message in conditions
        if kind not in had
    ]
    status["acceptedNames"] = dict(spec["names"])
    storage = [v.get("name") or "" for v in spec.get("versions") or () if v.get("storage")]
    stored = list(status.get("storedVersions") or ())
    status["storedVersions"] = stored + [v for v in storage if v not in stored]


def crd_causes(crd: Obj, old: Obj | None) -> list[Cause]:
    """What is wrong with a definition."""
    spec = crd["spec"]
    named, group = spec.get("names") or {}, spec.get("group") or ""
    causes = (
        [wrong("spec.group", group, why) for why in names.subdomain(group)]
        if group
        else [required("spec.group")]
    )
    if group and "." not in group:
        causes.append(wrong("spec.group", group, "should be a domain with at least one dot"))
    for key in ("plural", "singular", "kind", "listKind"):
        text = str(named.get(key) or "")
        why = names.label_1035(text.lower()) if text else []
        causes += (
            [wrong(f"spec.names.{key}", text, w) for w in why] if text else [required(f"spec.names.{key}")]
        )
    want = f"{named.get('plural')}.{group}"
    if crd["metadata"].get("name") != want:
        causes.append(
            wrong("metadata.name", crd["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group')
        )
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        causes.append(unsupported("spec.scope", spec.get("scope") or "", ["Cluster", "Namespaced"]))
    if group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io"):
        approval = (crd["metadata"].get("annotations") or {}).get(APPROVAL)
        causes += [] if approval else [required(f"metadata.annotations[{APPROVAL}]", _APPROVAL_TEXT)]
    causes += _version_causes(spec)
    if old is not None:
        was = old["spec"]
        causes += immutable("spec.group", group, was.get("group"))
        causes += immutable("spec.scope", spec.get("scope"), was.get("scope"))
        causes += immutable("spec.names.plural", named.get("plural"), was["names"].get("plural"))
        causes += immutable("spec.names.kind", named.get("kind"), was["names"].get("kind"))
    return causes


def _version_causes(spec: Obj) -> list[Cause]:
    versions = spec.get("versions") or []
    if not versions:
        return [required("spec.versions", "at least one version is needed")]
    causes: list[Cause] = []
    if sum(bool(v.get("storage")) for v in versions) != 1:
        causes.append(
            wrong("spec.versions", len(versions), "must have exactly one version marked as storage version")
        )
    if len({v.get("name") for v in versions}) != len(versions):
        causes.append(wrong("spec.versions", len(versions), "must contain unique version names"))
    for i, version in enumerate(versions):
        field = f"spec.versions[{i}]"
        causes += [
            wrong(f"{field}.name", version.get("name"), w)
            for w in names.label_1035(version.get("name") or "")
        ]
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            causes.append(required(f"{field}.schema.openAPIV3Schema", "schemas are required"))
        else:
            causes += _structural(schema, f"{field}.schema.openAPIV3Schema", root=True)
        causes += _column_causes(version, field)
        if (scale := (version.get("subresources") or {}).get("scale")) is not None:
            keys = [k for k in ("specReplicasPath", "statusReplicasPath") if not scale.get(k)]
            causes += [required(f"{field}.subresources.scale.{k}") for k in keys]
    return causes


def _column_causes(version: Obj, field: str) -> list[Cause]:
    causes: list[Cause] = []
    for j, column in enumerate(version.get("additionalPrinterColumns") or ()):
        at = f"{field}.additionalPrinterColumns[{j}]"
        causes += [required(f"{at}.{k}") for k in ("name", "type", "jsonPath") if not column.get(k)]
        try:
            json_path(column.get("jsonPath") or "")
        except ValueError as e:
            causes.append(wrong(f"{at}.jsonPath", column.get("jsonPath"), str(e)))
    return causes


def _structural(schema: Obj, field: str, root: bool = False) -> list[Cause]:
    """Each value of the schema says its type (KEP: structural schemas)."""
    causes: list[Cause] = []
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if root and schema.get("type") != "object":
        causes.append(wrong(f"{field}.type", schema.get("type") or "", "must be object at the root"))
    elif not schema.get("type") and not free:
        causes.append(required(f"{field}.type", "must not be empty for specified object fields"))
    elif schema.get("type") and schema["type"] not in _TYPES:
        causes.append(unsupported(f"{field}.type", schema["type"], list(_TYPES)))
    causes += _list_causes(schema, field)
    for key, child in (schema.get("properties") or {}).items():
        if not (root and key == "metadata"):
            causes += _structural(child, f"{field}.properties[{key}]")
    if "items" in schema:
        causes += _structural(schema["items"], f"{field}.items")
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        try:
            decode_check("apiextensions.JSONSchemaProps", "", extra)
        except ApiError as e:
            return [*causes, wrong(f"{field}.additionalProperties", extra, e.message)]
        causes += _structural(extra, f"{field}.additionalProperties")
    elif extra is not None and not isinstance(extra, bool):
        causes.append(wrong(f"{field}.additionalProperties", extra, "must be a schema or a boolean"))
    return causes


def _list_causes(schema: Obj, field: str) -> list[Cause]:
    """How a list merges, and that its keys are there to merge by."""
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if kind not in (None, "atomic", "set", "map"):
        return [unsupported(f"{field}.x-kubernetes-list-type", kind, ["atomic", "map", "set"])]
    if kind == "map" and not keys:
        why = "must not be empty if x-kubernetes-list-type is map"
        return [required(f"{field}.x-kubernetes-list-map-keys", why)]
    if keys and kind != "map":
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        return [required(f"{field}.x-kubernetes-list-type", why)]
    items = schema.get("items") or {}
    return [
        required(f"{field}.items.properties[{key}].default", _KEYS_TEXT)
        for key in keys
        if "default" not in ((items.get("properties") or {}).get(key) or {})
        and key not in (items.get("required") or ())
    ]


def _resource(crd: Obj, version: Obj) -> Resource:
    spec = crd["spec"]
    named, declared = spec["names"], version.get("subresources") or {}
    subs = []
    if "status" in declared:
        subs.append(Subresource("status", named["kind"], STATUS_VERBS))
    if "scale" in declared:
        subs.append(Subresource("scale", "Scale", STATUS_VERBS, "autoscaling", "v1"))
    return Resource(
        spec["group"],
        version["name"],
        named["plural"],
        named["kind"],
        spec["scope"] == "Namespaced",
        tuple(named.get("shortNames") or ()),
        tuple(named.get("categories") or ()),
        subresources=tuple(subs),
        singular=named.get("singular") or named["kind"].lower(),
        list_kind=named.get("listKind") or "",
        selectable=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
    )


def _serve(server: Server, crd: Obj) -> None:
    spec = crd["spec"]
    for version in sorted(spec["versions"], key=lambda v: version_order(v["name"])):
        if version.get("served"):
            key = (spec["group"], version["name"], spec["names"]["plural"])
            server.schemas[key] = CustomSchema.of(version, bool(spec.get("preserveUnknownFields")))
            server.registry.add(_resource(crd, version))


def _withdraw(server: Server, crd: Obj) -> None:
    spec = crd["spec"]
    for version in spec["versions"]:
        server.registry.drop(spec["group"], version["name"], spec["names"]["plural"])
        server.schemas.pop((spec["group"], version["name"], spec["names"]["plural"]), None)


def _remove_all(server: Server, crd: Obj) -> None:
    """A definition takes its objects with it, finalizers or not: nobody could remove those any more."""
    bucket = f"{crd['spec']['group']}/{crd['spec']['names']['plural']}"
    for stored in server.store.list(bucket):
        server.store.remove(bucket, stored.namespace, stored.name)


def follow_crds(server: Server) -> None:
    """Serve what stored definitions define, now and after each change."""

    def on_event(event: Event) -> None:
        if event.old is not None:
            _withdraw(server, event.old.obj)
        if event.deleted:
            _remove_all(server, event.new.obj)
        else:
            _serve(server, event.new.obj)

    for stored in server.store.list(BUCKET):
        _serve(server, stored.obj)
    server.store.listen(BUCKET, on_event)
