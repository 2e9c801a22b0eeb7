"""What a cluster has from the start: namespaces and the ``kubernetes`` Service."""

from collections.abc import Sequence
from ipaddress import ip_address

from towpath.lab.apiserver.admission import SYSTEM_PRIORITIES
from towpath.lab.apiserver.call import Server, User
from towpath.lab.apiserver.crds import follow_crds
from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.internal import create_internal
from towpath.lab.apiserver.service_addresses import follow_services

SECURE_PORT = 6443
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def bootstrap(server: Server, advertise: Sequence[str]) -> None:
    """Create what is missing; nodes reach port 6443 at the addresses ``advertise``. Raises StoreError."""
    follow_services(server)
    follow_crds(server)
    user = User("system:apiserver")
    for name in NAMESPACES:
        create_internal(server, user, "v1", "Namespace", "", {"metadata": {"name": name}})
    for name, value in SYSTEM_PRIORITIES.items():
        body = {"metadata": {"name": name}, "value": value, "description": f"Used for {name} pods"}
        create_internal(server, user, "scheduling.k8s.io/v1", "PriorityClass", "", body)
    if server.store.get("/services", "default", "kubernetes") is None:
        _service(server, user)
    _endpoints(server, user, advertise)


def _service(server: Server, user: User) -> None:
    first = [str(n.network_address + 1) for n in server.services.networks]
    service: Obj = {
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": first[0],
            "clusterIPs": first,
            "ports": [{"name": "https", "port": 443, "targetPort": SECURE_PORT, "protocol": "TCP"}],
        },
    }
    create_internal(server, user, "v1", "Service", "default", service)


def _endpoints(server: Server, user: User, advertise: Sequence[str]) -> None:
    port = {"name": "https", "port": SECURE_PORT, "protocol": "TCP"}
    for address in advertise:
        family = f"IPv{ip_address(address).version}"
        body: Obj = {
            "metadata": {
                "name": f"kubernetes-{family.lower()}",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [port],
        }
        create_internal(server, user, "discovery.k8s.io/v1", "EndpointSlice", "default", body)
    if advertise:
        subsets = [{"addresses": [{"ip": advertise[0]}], "ports": [port]}]
        body = {"metadata": {"name": "kubernetes"}, "subsets": subsets}
        create_internal(server, user, "v1", "Endpoints", "default", body)
