"""OpenAPI documents as far as clients read them: definitions with merge keys, and the parameters of PATCH."""

from collections.abc import Iterable
from typing import Any

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.resources import Resource
from towpath.lab.apiserver.schema.types import Field, Type, types

GVK = "x-kubernetes-group-version-kind"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_SCALARS: dict[str, Obj] = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
}
_SHARED = {
    "time": (f"{_META}.Time", {"type": "string", "format": "date-time"}),
    "micro": (f"{_META}.MicroTime", {"type": "string", "format": "date-time"}),
    "quantity": ("io.k8s.apimachinery.pkg.api.resource.Quantity", {"type": "string"}),
    "intstr": (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        {"type": "string", "format": "int-or-string"},
    ),
}
_INFO = {"title": "Kubernetes", "version": "v1.33.0"}
_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "pretty")


def _ref(name: str, base: str) -> Obj:
    return {"$ref": base + name}


def _one(type_name: str, base: str) -> Obj:
    if type_name in _SCALARS:
        return dict(_SCALARS[type_name])
    if type_name in _SHARED:
        return _ref(_SHARED[type_name][0], base)
    return _ref(types()[type_name].definition, base)


def _field_schema(field: Field, base: str) -> Obj:
    one = _one(field.type, base)
    if field.inner:
        one = {"type": "array", "items": one}
    if field.shape == "{}":
        return {"type": "object", "additionalProperties": one}
    schema: Obj = {"type": "array", "items": one} if field.shape else one
    if field.merge is not None or field.retain_keys:
        strategy = [
            s for s, on in (("merge", field.merge is not None), ("retainKeys", field.retain_keys)) if on
        ]
        schema["x-kubernetes-patch-strategy"] = ",".join(strategy)
        if field.merge:
            schema["x-kubernetes-patch-merge-key"] = field.merge
    if field.shape == "[]":
        if field.keys:
            schema["x-kubernetes-list-type"] = "map"
            schema["x-kubernetes-list-map-keys"] = list(field.keys)
        else:
            schema["x-kubernetes-list-type"] = "atomic" if field.keys is None else "set"
    if field.replace:
        schema["x-kubernetes-patch-strategy"] = "replace"
    return schema


def _definition(declared: Type, base: str) -> Obj:
    properties = {f.name: _field_schema(f, base) for f in declared.fields.values()}
    if "metadata" in declared.fields:
        properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, **properties}
    required = [f.name for f in declared.fields.values() if f.required]
    schema: Obj = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return schema


def _list_definition(resource: Resource, item: str, base: str) -> Obj:
    return {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "items": {"type": "array", "items": _ref(item, base)},
            "metadata": _ref(f"{_META}.ListMeta", base),
        },
        GVK: [_gvk(resource, f"{resource.kind}List")],
    }


def _gvk(resource: Resource, kind: str = "") -> Obj:
    return {"group": resource.group, "version": resource.version, "kind": kind or resource.kind}


def custom_name(resource: Resource) -> str:
    """``com.example.v1.CronTab``: the group reversed, as upstream names custom definitions."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _custom_definition(schema: Obj | None, base: str) -> Obj:
    body = dict(schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    properties = dict(body.get("properties") or {})
    properties |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": _ref(f"{_META}.ObjectMeta", base),
    }
    return {**body, "type": "object", "properties": properties}


def definitions(
    resources: Iterable[Resource], customs: dict[tuple[str, str, str], Obj | None], base: str
) -> Obj:
    """Schemas of the resources, of all they refer to, and of lists. ``customs`` are the schemas of CRDs."""
    made: Obj = dict(_SHARED.values())
    made[f"{_META}.ListMeta"] = _definition(types()["meta.ListMeta"], base)
    queue = ["meta.ObjectMeta", "meta.DeleteOptions", "meta.Status"]
    kinds: dict[str, list[Obj]] = {}
    for r in resources:
        if r.type:
            name = types()[r.type].definition
            queue.append(r.type)
        else:
            name = custom_name(r)
            made[name] = _custom_definition(customs.get((r.group, r.version, r.plural)), base)
        kinds.setdefault(name, []).append(_gvk(r))
        if "list" in r.verbs:
            made[f"{name}List"] = _list_definition(r, name, base)
    while queue:
        declared = types()[queue.pop()]
        if declared.definition not in made:
            made[declared.definition] = _definition(declared, base)
            queue += [f.type for f in declared.fields.values() if not f.scalar]
    for name, gvks in kinds.items():
        made[name][GVK] = gvks
    return made


def _operation(resource: Resource, action: str, v3: bool) -> Obj:
    parameters = [
        {"name": p, "in": "query", **({"schema": {"type": "string"}} if v3 else {"type": "string"})}
        for p in (_PARAMETERS if action in ("patch", "post", "put") else ())
    ]
    response: Obj = {"description": "OK"}
    return {
        "operationId": f"{action}{resource.group}{resource.version}{resource.kind}",
        "parameters": parameters,
        "responses": {"200": response},
        "x-kubernetes-action": action,
        GVK: _gvk(resource),
    }


def paths(resources: Iterable[Resource], v3: bool) -> Obj:
    """Paths of collections and objects with their operations' parameters."""
    made: Obj = {}
    for r in resources:
        root = f"/apis/{r.group}/{r.version}" if r.group else f"/api/{r.version}"
        collection = f"{root}/namespaces/{{namespace}}/{r.plural}" if r.namespaced else f"{root}/{r.plural}"
        stored = "get" in r.verbs
        made[collection] = {a: _operation(r, a, v3) for a in (("get", "post") if stored else ("post",))}
        if stored:
            made[f"{collection}/{{name}}"] = {
                a: _operation(r, a, v3) for a in ("get", "put", "patch", "delete")
            }
            if r.namespaced:
                made[f"{root}/{r.plural}"] = {"get": _operation(r, "get", v3)}
    return made


def v2_document(resources: list[Resource], customs: dict[tuple[str, str, str], Obj | None]) -> Obj:
    """The whole API as Swagger 2.0; what 2.0 cannot say of a custom schema is left out."""
    plain = {k: _plain(v) if v else v for k, v in customs.items()}
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": paths(resources, False),
        "definitions": definitions(resources, plain, "#/definitions/"),
    }


def v3_document(resources: list[Resource], customs: dict[tuple[str, str, str], Obj | None]) -> Obj:
    """One group and version as OpenAPI 3.0."""
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": paths(resources, True),
        "components": {"schemas": definitions(resources, customs, "#/components/schemas/")},
    }


_KEPT = ("type", "format", "description", "required", "x-kubernetes-preserve-unknown-fields",
         "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string")  # fmt: skip


def _plain(schema: Any) -> Any:
    """A structural schema as Swagger 2.0: upstream's ToStructuralOpenAPIV2 drops the same."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"x-kubernetes-int-or-string": True}
    made = {k: schema[k] for k in _KEPT if k in schema}
    if schema.get("nullable") or schema.get("x-kubernetes-preserve-unknown-fields"):
        return {k: made[k] for k in ("type", "description") if k in made and not schema.get("nullable")}
    if isinstance(schema.get("properties"), dict):
        made["properties"] = {k: _plain(v) for k, v in schema["properties"].items()}
    if "items" in schema:
        made["items"] = _plain(schema["items"])
    if "additionalProperties" in schema:
        made["additionalProperties"] = _plain(schema["additionalProperties"])
    return made
