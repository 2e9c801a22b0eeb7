"""Who else keeps an object, by what it leaves on it: Argo CD, Flux, or nobody."""

from typing import Any

import pytest

from towpath.upgrade.managers import manager_of

TRACKING = "network:apps/DaemonSet:kube-system/rke2-canal"
KUSTOMIZE = "kustomize.toolkit.fluxcd.io"


@pytest.mark.parametrize(
    ("meta", "who"),
    [
        ({}, ""),
        ({"labels": {"app.kubernetes.io/instance": "rke2-canal"}}, ""),
        ({"annotations": {"meta.helm.sh/release-name": "rke2-canal"}}, ""),
        ({"annotations": {"argocd.argoproj.io/tracking-id": TRACKING}}, "Argo CD (application network)"),
        ({"labels": {"argocd.argoproj.io/instance": "network"}}, "Argo CD (application network)"),
        (
            {"labels": {f"{KUSTOMIZE}/name": "net", f"{KUSTOMIZE}/namespace": "flux-system"}},
            "Flux (Kustomization flux-system/net)",
        ),
        (
            {"labels": {"helm.toolkit.fluxcd.io/name": "net", "helm.toolkit.fluxcd.io/namespace": "flux"}},
            "Flux (HelmRelease flux/net)",
        ),
        ({"managedFields": [{"manager": "argocd-controller"}]}, "Argo CD (it applied it)"),
        ({"managedFields": [{"manager": "kustomize-controller"}]}, "Flux (it applied it)"),
        ({"managedFields": [{"manager": "helm"}, {"manager": "kubectl-edit"}]}, ""),
    ],
)
def test_whose_it_is(meta: dict[str, Any], who: str) -> None:
    assert manager_of({"metadata": meta}) == who
