"""What every object's metadata must satisfy, new and changed."""

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.resources import Resource
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.field import immutable, not_allowed, required, wrong

_NAMES = {"Namespace": names.label_1123, "Service": names.label_1035}
ANNOTATIONS_LIMIT = 256 * 1024


def metadata_causes(obj: Obj, resource: Resource) -> list[Cause]:
    """Name, labels, annotations, owner references, finalizers."""
    meta = obj["metadata"]
    name = meta.get("name")
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    rbac = resource.group == "rbac.authorization.k8s.io"
    check = names.path_segment if rbac else _NAMES.get(resource.kind, names.subdomain)
    causes = [wrong("metadata.name", name, why) for why in check(name)]
    causes += label_causes(meta.get("labels"), "metadata.labels")
    size = 0
    for key, value in (meta.get("annotations") or {}).items():
        size += len(key) + len(value)
        causes += [wrong("metadata.annotations", key, why) for why in names.qualified_name(key.lower())]
    if size > ANNOTATIONS_LIMIT:
        causes.append(
            {
                "reason": "FieldValueTooLong",
                "field": "metadata.annotations",
                "message": f"Too long: may not be more than {ANNOTATIONS_LIMIT} bytes",
            }
        )
    for i, ref in enumerate(meta.get("ownerReferences") or ()):
        causes += [
            wrong(f"metadata.ownerReferences[{i}].{key}", "", f"{key} must not be empty")
            for key in ("apiVersion", "kind", "name", "uid")
            if not ref.get(key)
        ]
    for finalizer in meta.get("finalizers") or ():
        causes += [wrong("metadata.finalizers", finalizer, why) for why in names.qualified_name(finalizer)]
    return causes


def label_causes(labels: Obj | None, field: str) -> list[Cause]:
    """Keys and values of labels."""
    causes: list[Cause] = []
    for key, value in (labels or {}).items():
        causes += [wrong(field, key, why) for why in names.qualified_name(key)]
        causes += [wrong(field, value, why) for why in names.label_value(value)]
    return causes


def metadata_update_causes(obj: Obj, old: Obj) -> list[Cause]:
    """What may not change. The server has copied its own fields already."""
    meta, was = obj["metadata"], old["metadata"]
    causes = immutable("metadata.name", meta.get("name"), was.get("name"))
    if was.get("deletionTimestamp"):
        added = [f for f in meta.get("finalizers") or () if f not in (was.get("finalizers") or ())]
        if added:
            causes.append(
                not_allowed(
                    "metadata.finalizers",
                    f"no new finalizers can be added if the object is being deleted, found new finalizers "
                    f"[]string{{{', '.join(chr(34) + f + chr(34) for f in added)}}}",
                )
            )
    return causes
