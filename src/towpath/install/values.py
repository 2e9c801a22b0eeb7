"""What an installation may choose: the schema of ``towpath install render --values FILE`` (YAML)."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal

import msgspec

from towpath import __version__


class ValuesError(Exception):
    """Values that cannot be installed; the text names the key and what it must be."""


class Values(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An installation. Networks and backend are flannel's; keep an existing cluster's as they are.

    ``cluster_cidrs`` the pod networks, one a family. ``agent`` further keys of the agent's file
    (``towpath agent --help`` lists them). ``uid`` and ``gid`` are what the agent runs as; not 65534, which
    other software uses as nobody's. Folders are the host's. ``update_strategy`` OnDelete leaves the pace of
    an upgrade to ``towpath upgrade``. ``selinux_type`` of both containers: ``spc_t`` where SELinux enforces.
    ``seccomp_profile`` of the agent: a file in the kubelet's folder ``seccomp``; empty: the runtime's own.
    ``helper``: towpath-ns, too, for networks of pods that run. ``migrating``: only on Nodes labelled
    ``towpath.dev/network``; ``takeover_image`` is the one with iptables and ipset, for takeovers.
    ``metrics_tls_secret``: health and metrics are also reachable from outside the node, by the certificate
    in it (tls.crt, tls.key, ca.crt); the last three are for Prometheus' operator and Grafana.
    """

    image: str = f"docker.io/towpath/towpath-agent:v{__version__}"
    takeover_image: str = f"docker.io/towpath/towpath-takeover:v{__version__}"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    namespace: str = "kube-system"
    cluster_cidrs: tuple[str, ...] = ("10.42.0.0/16",)
    backend: Literal["vxlan", "host-gw"] = "vxlan"
    vni: int = 1
    port: int = 8472
    direct_routing: bool = False
    helper: bool = False
    migrating: bool = False
    uid: int = 10531
    gid: int = 10531
    health_port: int = 9109
    cpu_request: str = "50m"
    memory_request: str = "64Mi"
    update_strategy: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    selinux_type: str = ""
    seccomp_profile: str = ""
    cni_bin: str = "/opt/cni/bin"
    cni_conf: str = "/etc/cni/net.d"
    conflist: str = "10-towpath.conflist"
    state: str = "/var/lib/towpath"
    run: str = "/run/towpath"
    metrics_tls_secret: str = ""
    service_monitor: bool = False
    alert_rules: bool = False
    dashboard: bool = False
    agent: dict[str, Any] = {}

    @property
    def ipv4(self) -> IPv4Network | None:
        """The IPv4 pod network."""
        return next((n for n in self._networks() if isinstance(n, IPv4Network)), None)

    @property
    def ipv6(self) -> IPv6Network | None:
        """The IPv6 pod network."""
        return next((n for n in self._networks() if isinstance(n, IPv6Network)), None)

    def _networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(text) for text in self.cluster_cidrs]


def values(raw: object) -> Values:
    """Checked values of a decoded file (None: an empty one). Raises ValuesError."""
    try:
        given = msgspec.convert({} if raw is None else raw, Values, strict=False)
    except msgspec.ValidationError as wrong:
        raise ValuesError(str(wrong)) from wrong
    problems = [*_network_problems(given), *_other_problems(given)]
    if problems:
        raise ValuesError("; ".join(problems))
    return given


def _network_problems(given: Values) -> list[str]:
    problems, families = [], []
    for text in given.cluster_cidrs:
        try:
            families.append(ip_network(text).version)
        except ValueError as wrong:
            problems.append(f"cluster_cidrs: {wrong}")
    if not problems and (not families or len(set(families)) != len(families)):
        problems.append("cluster_cidrs: give one network a family")
    return problems


def _other_problems(given: Values) -> list[str]:
    problems = []
    if not 1 <= given.uid < 2**32 - 1 or given.uid == 65534:
        problems.append(f"uid: {given.uid} must be a user of its own, neither 0 nor 65534")
    if not 1 <= given.gid < 2**32 - 1 or given.gid == 65534:
        problems.append(f"gid: {given.gid} must be a group of its own, neither 0 nor 65534")
    problems += [
        f"{name}: {number} is not from {least} to {most}"
        for name, number, least, most in (
            ("vni", given.vni, 1, 2**24 - 1),
            ("port", given.port, 1, 65535),
            ("health_port", given.health_port, 1, 65535),
        )
        if not least <= number <= most
    ]
    problems += [
        f"{name}: {path!r} must be an absolute path"
        for name in ("cni_bin", "cni_conf", "state", "run")
        if not (path := getattr(given, name)).startswith("/") or "/../" in path + "/"
    ]
    if given.seccomp_profile.startswith("/") or "/../" in f"/{given.seccomp_profile}/":
        problems.append(
            f"seccomp_profile: {given.seccomp_profile!r} must be a path within the kubelet's folder seccomp"
        )
    if not given.conflist.endswith(".conflist") or "/" in given.conflist:
        problems.append(f"conflist: {given.conflist!r} must be a file name that ends in .conflist")
    if given.service_monitor and not given.metrics_tls_secret:
        problems.append(
            "service_monitor: metrics are on the node's loopback; name a Secret in metrics_tls_secret"
        )
    if ":" not in given.image.rpartition("/")[2] and "@" not in given.image:
        problems.append(f"image: {given.image!r} needs a tag or a digest, so that a rollout can be undone")
    return problems
