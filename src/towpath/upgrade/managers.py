"""Who else keeps an object as it should be, and would undo what the conductor does: Argo CD, Flux. Pure.

Argo CD marks what it owns with the annotation ``argocd.argoproj.io/tracking-id`` or a label of its choice
(``argocd.argoproj.io/instance`` is the documented one that nobody else uses); Flux with labels of its
kustomize-controller or helm-controller. Both also stand in ``managedFields``, as who applied it.
"""

from towpath.kube.kinds import Raw
from towpath.model.finding import Finding

_ARGO = "argocd.argoproj.io/"
_FLUX = (("kustomize.toolkit.fluxcd.io/", "Kustomization"), ("helm.toolkit.fluxcd.io/", "HelmRelease"))
_APPLIERS = {"argocd-controller": "Argo CD", "kustomize-controller": "Flux"}


def manager_of(raw: Raw) -> str:
    """In words, such as ``Argo CD (application network)``; empty for nobody."""
    meta = raw["metadata"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    tracked = str(annotations.get(f"{_ARGO}tracking-id", "")).partition(":")[0]
    if application := tracked or labels.get(f"{_ARGO}instance"):
        return f"Argo CD (application {application})"
    for prefix, kind in _FLUX:
        if name := labels.get(f"{prefix}name"):
            return f"Flux ({kind} {labels.get(f'{prefix}namespace', '?')}/{name})"
    for entry in meta.get("managedFields") or ():
        if known := _APPLIERS.get(entry.get("manager", "")):
            return f"{known} (it applied it)"
    return ""


def finding(where: str, manager: str) -> Finding:
    """That somebody else owns what would be changed."""
    return Finding(
        code="TP7406",
        object=where,
        message=f"is kept by {manager}, which would put the old version back in the middle of the upgrade",
        fix="pause its syncing and plan with --managed-elsewhere; change its source before it syncs again",
    )
