"""Command lines of the control plane's programs, by what the given version knows. Pure but for ``--help``."""

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

import msgspec

from towpath.lab.real.binaries import KubeBinaries, Version
from towpath.lab.real.pki import Identity

ETCD_PORT, ETCD_PEER_PORT = 2379, 2380
ISSUER = "https://kubernetes.default.svc.cluster.local"
# Dual stack: alpha and off in 1.20, on from 1.21, the gate itself gone with 1.25.
_DUAL_STACK_BY_DEFAULT = Version(1, 21)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A control plane as asked for.

    ``addresses`` where nodes reach the API server, the preferred family first, all present in the network
    namespace; ``names`` further names and addresses of its certificate. ``cluster_cidrs`` and
    ``service_cidrs`` one network a family, the preferred first. ``node_prefixes`` prefix length of a node's
    podCIDR in IPv4 and IPv6. ``tokens`` a file of static tokens (kube-apiserver ``--token-auth-file``).
    ``node_grace`` seconds without a heartbeat until a node is NotReady. ``more`` further flags by program.
    """

    addresses: tuple[str, ...]
    port: int = 6443
    names: tuple[str, ...] = ()
    cluster_cidrs: tuple[str, ...] = ("10.42.0.0/16", "fd00:10:42::/56")
    service_cidrs: tuple[str, ...] = ("10.43.0.0/16", "fd00:10:43::/112")
    node_prefixes: tuple[int, int] = (24, 64)
    tokens: Path | None = None
    node_grace: int = 40
    more: dict[str, tuple[str, ...]] = {}

    @property
    def host(self) -> str:
        """The preferred address as a URL has it."""
        return f"[{self.addresses[0]}]" if ":" in self.addresses[0] else self.addresses[0]

    @property
    def url(self) -> str:
        """The API server as nodes reach it."""
        return f"https://{self.host}:{self.port}"

    @property
    def local_url(self) -> str:
        """The API server as its neighbours in the network namespace reach it."""
        return f"https://127.0.0.1:{self.port}"

    def server_names(self) -> tuple[str, ...]:
        """Whatever the API server may be called by."""
        service = str(next(ip_network(self.service_cidrs[0]).hosts()))
        kubernetes = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
        return (
            *self.addresses, *self.names, "127.0.0.1", "::1", "localhost", service,
            *kubernetes, f"{kubernetes[-1]}.cluster.local",
        )  # fmt: skip


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Paths the programs are given."""

    data: Path
    ca: Path
    server: Identity
    etcd: Identity
    etcd_client: Identity
    kubelet_client: Identity
    front_ca: Path
    front: Identity
    service_accounts: Path
    ca_key: Path
    controller_manager: Path
    scheduler: Path


def etcd(binaries: KubeBinaries, files: Files) -> list[str]:
    """A single member that only its own network namespace reaches, with TLS both ways."""
    client, peer = f"https://127.0.0.1:{ETCD_PORT}", f"https://127.0.0.1:{ETCD_PEER_PORT}"
    return [
        str(binaries.etcd),
        "--name=towpath",
        f"--data-dir={files.data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=towpath={peer}",
        f"--cert-file={files.etcd.certificate}",
        f"--key-file={files.etcd.key}",
        f"--trusted-ca-file={files.ca}",
        "--client-cert-auth",
        f"--peer-cert-file={files.etcd.certificate}",
        f"--peer-key-file={files.etcd.key}",
        f"--peer-trusted-ca-file={files.ca}",
        "--peer-client-cert-auth",
        # A lone member has nobody to wait for before it elects itself.
        "--heartbeat-interval=20",
        "--election-timeout=200",
    ]


def apiserver(binaries: KubeBinaries, settings: Settings, files: Files) -> list[str]:
    """kube-apiserver: RBAC, the Node authorizer, certificates and service account tokens."""
    any_address = "::" if any(":" in address for address in settings.addresses) else "0.0.0.0"  # noqa: S104
    # fmt: off
    flags = [
        f"--etcd-servers=https://127.0.0.1:{ETCD_PORT}",
        f"--etcd-cafile={files.ca}",
        f"--etcd-certfile={files.etcd_client.certificate}", f"--etcd-keyfile={files.etcd_client.key}",
        f"--bind-address={any_address}", f"--secure-port={settings.port}",
        f"--advertise-address={settings.addresses[0]}",
        f"--tls-cert-file={files.server.certificate}", f"--tls-private-key-file={files.server.key}",
        f"--client-ca-file={files.ca}",
        f"--kubelet-certificate-authority={files.ca}",
        f"--kubelet-client-certificate={files.kubelet_client.certificate}",
        f"--kubelet-client-key={files.kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--requestheader-client-ca-file={files.front_ca}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={files.front.certificate}",
        f"--proxy-client-key-file={files.front.key}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={files.service_accounts}",
        f"--service-account-signing-key-file={files.service_accounts}",
        f"--service-cluster-ip-range={','.join(settings.service_cidrs)}",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]
    # fmt: on
    if settings.tokens:
        flags.append(f"--token-auth-file={settings.tokens}")
    return [str(binaries.apiserver), *flags, *_common(binaries, settings, "kube-apiserver")]


def controller_manager(binaries: KubeBinaries, settings: Settings, files: Files) -> list[str]:
    """kube-controller-manager, which also gives nodes their podCIDRs."""
    program = binaries.controller_manager
    # fmt: off
    flags = [
        *_component(binaries, program, files.controller_manager),
        "--allocate-node-cidrs", f"--cluster-cidr={','.join(settings.cluster_cidrs)}",
        f"--service-cluster-ip-range={','.join(settings.service_cidrs)}",
        *_node_masks(settings),
        f"--root-ca-file={files.ca}", f"--service-account-private-key-file={files.service_accounts}",
        f"--cluster-signing-cert-file={files.ca}", f"--cluster-signing-key-file={files.ca_key}",
        "--use-service-account-credentials", "--kube-api-qps=200", "--kube-api-burst=400",
        f"--node-monitor-grace-period={settings.node_grace}s",
        "--node-monitor-period=1s" if settings.node_grace < 40 else "--node-monitor-period=5s",
    ]
    # fmt: on
    return [str(program), *flags, *_common(binaries, settings, "kube-controller-manager")]


def scheduler(binaries: KubeBinaries, settings: Settings, files: Files) -> list[str]:
    """kube-scheduler."""
    program = binaries.scheduler
    flags = _component(binaries, program, files.scheduler)
    return [str(program), *flags, *_common(binaries, settings, "kube-scheduler")]


def _component(binaries: KubeBinaries, program: Path, kubeconfig: Path) -> list[str]:
    flags = [f"--{use}kubeconfig={kubeconfig}" for use in ("", "authentication-", "authorization-")]
    flags += ["--leader-elect=false", "--bind-address=127.0.0.1"]
    if binaries.supports(program, "--port"):
        flags.append("--port=0")  # the plain HTTP port, until 1.23
    return flags


def _node_masks(settings: Settings) -> list[str]:
    four, six = settings.node_prefixes
    if len(settings.cluster_cidrs) > 1:
        return [f"--node-cidr-mask-size-ipv4={four}", f"--node-cidr-mask-size-ipv6={six}"]
    return [f"--node-cidr-mask-size={six if ':' in settings.cluster_cidrs[0] else four}"]


def _common(binaries: KubeBinaries, settings: Settings, program: str) -> Iterable[str]:
    gates = feature_gates(binaries.version, dual_stack=len(settings.service_cidrs) > 1)
    return (*gates, *settings.more.get(program, ()))


def feature_gates(version: Version, *, dual_stack: bool) -> list[str]:
    """The ``--feature-gates`` every program of the cluster (kubelet and kube-proxy too) needs, or none."""
    if dual_stack and version < _DUAL_STACK_BY_DEFAULT:
        return ["--feature-gates=IPv6DualStack=true"]
    return []
