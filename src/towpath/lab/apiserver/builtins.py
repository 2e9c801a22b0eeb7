"""The builtin resources, as Kubernetes 1.33 describes them in discovery."""

from dataclasses import replace

from towpath.lab.apiserver.resources import Registry, Resource, Subresource, status_of

SCALE = Subresource("scale", "Scale", ("get", "patch", "update"), "autoscaling", "v1")
CREATE = ("create",)
GET = ("get",)
STREAM = ("create", "get")

_POD = (
    Subresource("attach", "PodAttachOptions", STREAM),
    Subresource("binding", "Binding", CREATE),
    Subresource("ephemeralcontainers", "Pod", ("get", "patch", "update")),
    Subresource("eviction", "Eviction", CREATE, "policy", "v1"),
    Subresource("exec", "PodExecOptions", STREAM),
    Subresource("log", "Pod", GET),
)


def _core() -> list[Resource]:
    def r(plural: str, kind: str, namespaced: bool = True, *short: str, **more: object) -> Resource:
        base = Resource("", "v1", plural, kind, namespaced, short, type=f"core.{kind}")
        return replace(base, **more)  # type: ignore[arg-type]

    everything = ("all",)
    return [
        r("bindings", "Binding", True, verbs=CREATE),
        r("configmaps", "ConfigMap", True, "cm"),
        r("endpoints", "Endpoints", True, "ep"),
        r("events", "Event", True, "ev"),
        r("limitranges", "LimitRange", True, "limits"),
        replace(
            status_of(
                r("namespaces", "Namespace", False, "ns"), Subresource("finalize", "Namespace", ("update",))
            ),
            verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
        ),
        status_of(r("nodes", "Node", False, "no")),
        status_of(r("persistentvolumeclaims", "PersistentVolumeClaim", True, "pvc")),
        status_of(r("persistentvolumes", "PersistentVolume", False, "pv")),
        status_of(r("pods", "Pod", True, "po", categories=everything), *_POD),
        r("podtemplates", "PodTemplate"),
        status_of(r("resourcequotas", "ResourceQuota", True, "quota")),
        r("secrets", "Secret"),
        replace(
            r("serviceaccounts", "ServiceAccount", True, "sa"),
            subresources=(Subresource("token", "TokenRequest", CREATE, "authentication.k8s.io", "v1"),),
        ),
        status_of(r("services", "Service", True, "svc", categories=everything)),
    ]


def _apps() -> list[Resource]:
    def r(plural: str, kind: str, *short: str) -> Resource:
        return Resource("apps", "v1", plural, kind, True, short, ("all",), f"apps.{kind}")

    return [
        replace(r("controllerrevisions", "ControllerRevision"), categories=()),
        status_of(r("daemonsets", "DaemonSet", "ds")),
        status_of(r("deployments", "Deployment", "deploy"), SCALE),
        status_of(r("replicasets", "ReplicaSet", "rs"), SCALE),
        status_of(r("statefulsets", "StatefulSet", "sts"), SCALE),
    ]


def _other(
    group: str, package: str, plural: str, kind: str, namespaced: bool = True, *short: str
) -> Resource:
    return Resource(group, "v1", plural, kind, namespaced, short, type=f"{package}.{kind}")


def _review(group: str, package: str, plural: str, kind: str, namespaced: bool = False) -> Resource:
    return replace(_other(group, package, plural, kind, namespaced), verbs=CREATE)


def _groups() -> list[Resource]:
    rbac, net, auth = "rbac.authorization.k8s.io", "networking.k8s.io", "authorization.k8s.io"
    authn = "authentication.k8s.io"
    return [
        status_of(replace(_other("batch", "batch", "jobs", "Job"), categories=("all",))),
        status_of(replace(_other("batch", "batch", "cronjobs", "CronJob", True, "cj"), categories=("all",))),
        _review(authn, "authentication", "tokenreviews", "TokenReview"),
        _review(authn, "authentication", "selfsubjectreviews", "SelfSubjectReview"),
        _review(auth, "authorization", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        _review(auth, "authorization", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        _review(auth, "authorization", "subjectaccessreviews", "SubjectAccessReview"),
        _review(auth, "authorization", "localsubjectaccessreviews", "LocalSubjectAccessReview", True),
        _other("coordination.k8s.io", "coordination", "leases", "Lease"),
        _other("discovery.k8s.io", "discovery", "endpointslices", "EndpointSlice"),
        replace(_other("events.k8s.io", "events", "events", "Event", True, "ev"), storage="/events"),
        _other(net, "networking", "ingressclasses", "IngressClass", False),
        status_of(_other(net, "networking", "ingresses", "Ingress", True, "ing")),
        _other(net, "networking", "networkpolicies", "NetworkPolicy", True, "netpol"),
        status_of(_other("policy", "policy", "poddisruptionbudgets", "PodDisruptionBudget", True, "pdb")),
        _other(rbac, "rbac", "clusterrolebindings", "ClusterRoleBinding", False),
        _other(rbac, "rbac", "clusterroles", "ClusterRole", False),
        _other(rbac, "rbac", "rolebindings", "RoleBinding"),
        _other(rbac, "rbac", "roles", "Role"),
        _other("scheduling.k8s.io", "scheduling", "priorityclasses", "PriorityClass", False, "pc"),
        status_of(
            Resource(
                "apiextensions.k8s.io",
                "v1",
                "customresourcedefinitions",
                "CustomResourceDefinition",
                False,
                ("crd", "crds"),
                ("api-extensions",),
                "apiextensions.CustomResourceDefinition",
            )
        ),
    ]


def builtin_registry() -> Registry:
    """A fresh registry of everything builtin."""
    registry = Registry()
    for resource in (*_core(), *_apps(), *_groups()):
        registry.add(replace(resource, singular=resource.kind.lower()))
    return registry
