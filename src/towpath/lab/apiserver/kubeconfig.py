"""A kubeconfig file of one cluster, one user, one context."""

import base64
import json


def kubeconfig(server_url: str, ca: str, token: str, name: str = "towpath-lab") -> str:
    """The file's text: JSON, which is YAML. ``ca`` is PEM text."""
    cluster = {"server": server_url, "certificate-authority-data": base64.b64encode(ca.encode()).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }
    return json.dumps(config, indent=2) + "\n"
