"""``v1.Pod`` as far as the lab's kubelet acts on it. Unknown fields are ignored, null means absent."""

from typing import Any

import msgspec

from towpath.api.meta import ObjectMeta


class _Camel(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Wire names in camel case."""


class KeySelector(_Camel, frozen=True):
    """``configMapKeyRef``, ``secretKeyRef``."""

    name: str = ""
    key: str = ""
    optional: bool | None = None


class FieldSelector(_Camel, frozen=True):
    """``fieldRef``."""

    field_path: str = ""


class EnvSource(_Camel, frozen=True):
    """``valueFrom``."""

    field_ref: FieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(_Camel, frozen=True):
    """One environment variable."""

    name: str
    value: str | None = None
    value_from: EnvSource | None = None


class EnvFrom(_Camel, frozen=True):
    """All keys of a config map or secret."""

    prefix: str = ""
    config_map_ref: KeySelector | None = None
    secret_ref: KeySelector | None = None


class Port(_Camel, frozen=True):
    """``v1.ContainerPort``."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(name="hostIP", default="")


class HttpGet(_Camel, frozen=True):
    """``httpGet`` of a probe."""

    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"


class TcpSocket(_Camel, frozen=True):
    """``tcpSocket`` of a probe."""

    port: int | str
    host: str = ""


class ExecAction(_Camel, frozen=True):
    """``exec`` of a probe."""

    command: list[str] | None = None


class Probe(_Camel, frozen=True):
    """A probe; times in seconds."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: int | None = 0
    period_seconds: int | None = 10
    timeout_seconds: int | None = 1
    success_threshold: int | None = 1
    failure_threshold: int | None = 3


class VolumeMount(_Camel, frozen=True):
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool | None = None


class Capabilities(_Camel, frozen=True):
    """``securityContext.capabilities``."""

    add: list[str] | None = None
    drop: list[str] | None = None


class SecurityContext(_Camel, frozen=True):
    """``securityContext``; with a single mapped uid, ``runAsUser`` cannot be honoured."""

    capabilities: Capabilities | None = None
    read_only_root_filesystem: bool | None = None
    privileged: bool | None = None


class Container(_Camel, frozen=True):
    """``v1.Container``."""

    name: str
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str = ""
    env: list[EnvVar] | None = None
    env_from: list[EnvFrom] | None = None
    ports: list[Port] | None = None
    volume_mounts: list[VolumeMount] | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    security_context: SecurityContext | None = None


class KeyToPath(_Camel, frozen=True):
    """One file of a config map, secret or downward volume."""

    key: str = ""
    path: str = ""
    field_ref: FieldSelector | None = None


class FilesOf(_Camel, frozen=True):
    """A config map, secret or downward volume, in either of the spellings the API has for the name."""

    name: str = ""
    secret_name: str = ""
    items: list[KeyToPath] | None = None
    optional: bool | None = None


class TokenProjection(_Camel, frozen=True):
    """``serviceAccountToken`` of a projected volume."""

    path: str = "token"


class Projection(_Camel, frozen=True):
    """One source of a projected volume."""

    config_map: FilesOf | None = None
    secret: FilesOf | None = None
    downward_api: FilesOf | None = msgspec.field(name="downwardAPI", default=None)
    service_account_token: TokenProjection | None = None


class Projected(_Camel, frozen=True):
    """``projected``."""

    sources: list[Projection] | None = None


class HostPath(_Camel, frozen=True):
    """``hostPath``."""

    path: str = ""
    type: str | None = ""


class Volume(_Camel, frozen=True):
    """``v1.Volume`` of the kinds the lab has."""

    name: str
    empty_dir: dict[str, Any] | None = None
    host_path: HostPath | None = None
    config_map: FilesOf | None = None
    secret: FilesOf | None = None
    downward_api: FilesOf | None = msgspec.field(name="downwardAPI", default=None)
    projected: Projected | None = None


class PodSpec(_Camel, frozen=True):
    """``v1.PodSpec``."""

    node_name: str = ""
    hostname: str = ""
    host_network: bool | None = None
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = 30
    service_account_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None


class PodMeta(ObjectMeta, frozen=True, rename="camel"):
    """Metadata with what deletion needs."""

    deletion_grace_period_seconds: int | None = None
    generation: int | None = None


class PodStatus(_Camel, frozen=True):
    """``v1.PodStatus``: what was reported before."""

    phase: str = ""
    start_time: str | None = None
    conditions: list[dict[str, Any]] | None = None
    container_statuses: list[dict[str, Any]] | None = None


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """``v1.Pod``."""

    metadata: PodMeta = PodMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def finished(self) -> bool:
        """Whether it has ended for good, as reported before."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def init_containers(self) -> list[Container]:
        """Never None."""
        return self.spec.init_containers or []


def named_port(container: Container, port: int | str) -> int:
    """The number of a probe's port. Raises KeyError for a name the container does not have."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for declared in container.ports or []:
        if declared.name == port:
            return declared.container_port
    raise KeyError(f"container {container.name} has no port named {port!r}")
