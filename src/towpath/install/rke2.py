"""Towpath as RKE2 and K3s install things themselves: a HelmChart in the servers' manifests folder.

The chart is in the object (``chartContent``), so that no repository is asked. Fields:
https://docs.rke2.io/helm
"""

import base64
import gzip
import io
import tarfile
from typing import Any

import msgspec
import yaml

from towpath.install.chart import chart
from towpath.install.values import Values


def helm_chart(values: Values, registry: str = "") -> dict[str, Any]:
    """``registry``: where images come from instead, as ``system-default-registry`` of the servers says.

    ``bootstrap``: the Job that installs it needs no pod network. ``abort``: a chart that fails is never
    uninstalled to be tried again, which would be a cluster without network.
    """
    given = msgspec.to_builtins(values)
    chosen = {k: v for k, v in given.items() if v != msgspec.to_builtins(Values())[k]}
    chosen.pop("takeover_image", None)
    if registry:
        chosen["global"] = {"systemDefaultRegistry": registry}
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": "towpath", "namespace": "kube-system"},
        "spec": {
            "chartContent": base64.b64encode(packed()).decode(),
            "targetNamespace": values.namespace,
            "bootstrap": True,
            "failurePolicy": "abort",
            "valuesContent": yaml.safe_dump(chosen, sort_keys=False) if chosen else "",
        },
    }


def packed() -> bytes:
    """The chart as ``helm package`` has it, the same bytes each time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, text in sorted(chart().items()):
            member = tarfile.TarInfo(f"towpath/{path}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(out.getvalue(), mtime=0)
