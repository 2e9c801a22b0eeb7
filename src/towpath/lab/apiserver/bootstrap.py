"""What a cluster has from the start: namespaces and the ``kubernetes`` Service."""

from towpath.lab.apiserver.call import Server, User
from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.internal import create_internal

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def bootstrap(server: Server) -> None:
    """Create what is missing. Raises StoreError."""
    user = User("system:apiserver")
    for name in NAMESPACES:
        create_internal(server, user, "v1", "Namespace", "", {"metadata": {"name": name}})
    service: Obj = {
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP"}]},
    }
    create_internal(server, user, "v1", "Service", "default", service)
