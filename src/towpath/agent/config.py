"""The agent's settings: configuration file, environment, flags; later ones win; all checked the same way."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from towpath.agent.setting import (
    Rejected,
    choice,
    failsafes,
    flag,
    folders,
    host_port,
    net_conf,
    networks,
    node_name,
    number,
    optional_file,
    path,
    text,
    whole_number,
    words,
)
from towpath.model.failsafe import INBOUND, OUTBOUND, Failsafe
from towpath.model.net import Net
from towpath.policy.calico_order import ERAS

ENV_PREFIX = "TOWPATH_"
DEFAULT_FILE = "/etc/towpath/agent.yaml"


class ConfigError(Exception):
    """Settings that cannot be used: ``problems`` has one sentence for each, with the key and the fix."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class Setting(msgspec.Struct, frozen=True):
    """One key. ``parse`` turns text, or a YAML value, into the typed value or raises Rejected."""

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str

    @property
    def env(self) -> str:
        """Name of the environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """Name of the flag."""
        return "--" + self.name.replace("_", "-")


SETTINGS = (
    Setting("node_name", node_name, "", "name of this node's Node object (default: the host name)"),
    Setting("kubeconfig", text, "", "kubeconfig file (default: as kubectl, in-cluster first)"),
    Setting("standalone", networks, (), "no cluster (podman): CIDRs of this host's containers, one a family"),
    Setting("net_conf", net_conf, "/etc/kube-flannel/net-conf.json", "flannel's net-conf.json: path or JSON"),
    Setting("cni_socket", path, Path("/run/towpath/cni.sock"), "Unix socket the CNI shim calls"),
    Setting(
        "state_dir", path, Path("/var/lib/towpath"), "folder of the lease store, on a disk that survives"
    ),
    Setting("iface", text, "", "underlay interface, by name or address (default: the InternalIP's)"),
    Setting("masquerade", flag, True, "masquerade what pods send out of the cluster (flannel's --ip-masq)"),
    Setting(
        "own_table",
        flag,
        True,
        "own the nftables table where the kernel can (6.9): others' flush passes it by",
    ),
    Setting("pod_mtu", whole_number(0, 65535), 0, "MTU of pod interfaces, 0 to compute it from the underlay"),
    Setting("health_address", host_port, ("127.0.0.1", 9109), "where /healthz, /readyz, /metrics are served"),
    Setting("health_tls_cert", optional_file, None, "PEM certificate for them"),
    Setting("health_tls_key", optional_file, None, "PEM key of that certificate"),
    Setting(
        "health_token_file", optional_file, None, "file with the bearer token /metrics and the rest demand"
    ),
    Setting("run_as_uid", whole_number(0, 2**32 - 2), 0, "uid to run as after start (0: the starting one)"),
    Setting("run_as_gid", whole_number(0, 2**32 - 2), 0, "gid to run as after start (0: the starting one)"),
    Setting("log_format", choice("json", "console"), "json", "json or console"),
    Setting("log_level", choice("debug", "info", "warning", "error"), "info", "least level that is logged"),
    Setting(
        "boot_id_file", path, Path("/proc/sys/kernel/random/boot_id"), "what tells one boot from another"
    ),
    Setting("resync_seconds", number(1, 3600), 60.0, "look at everything this often, event or not"),
    Setting(
        "lease_grace_seconds",
        number(0, 86400),
        60.0,
        "free a lease that node and API both say nobody needs after so long",
    ),
    Setting(
        "ipam_mode",
        choice("podCIDR", "blocks"),
        "podCIDR",
        "pods' addresses: of the node's podCIDRs, or of Calico's pools by blocks",
    ),
    Setting("offload_probe", flag, True, "find and mend broken checksum offload on the overlay"),
    Setting("offload_port", whole_number(1, 65535), 8473, "UDP port of that probe on overlay addresses"),
    Setting(
        "revocation",
        choice("survive", "enforce"),
        "survive",
        "of flows that a changed policy denies: enforce cuts",
    ),
    Setting(
        "calico_order",
        choice(*ERAS),
        "3.32",
        "order and tier of Calico's policies as up to 3.31, or from 3.32",
    ),
    Setting("policy_log_group", whole_number(0, 65535), 4, "group of NFLOG that policies log to"),
    Setting("policy_log_denials", whole_number(0, 1000), 10, "denied packets told a second, 0 for none"),
    Setting(
        "failsafe_inbound", failsafes, INBOUND, "ports no host endpoint closes: tcp:22,udp:CIDR:68; none"
    ),
    Setting("failsafe_outbound", failsafes, OUTBOUND, "the same, of others, for what this host sends"),
    Setting("network_ipam", flag, False, "towpath-ipam gives addresses to extra networks"),
    Setting("network_namespace", text, "kube-system", "where networks that all pods get are looked up"),
    Setting("network_defaults", words, (), "networks that all pods get beside the default one: NAME,NS/NAME"),
    Setting("network_isolation", flag, False, "pods may use networks of their own namespace only"),
    Setting("network_global_namespaces", words, ("default",), "but those of these namespaces too"),
    Setting("network_system_namespaces", words, ("kube-system",), "their pods get no network_defaults"),
    Setting("network_types", words, (), "plugins that networks may use beyond the known ones"),
    Setting(
        "network_paths",
        folders,
        (),
        "host folders that networks' configurations may name beyond /var/lib/cni",
    ),
    Setting("network_seconds", number(1, 600), 60.0, "a plugin of an extra network may take so long"),
    Setting(
        "network_ask_ms",
        whole_number(0, 5000),
        40,
        "ask the segment of an extra network so long who has an address, 0: not at all",
    ),
    Setting(
        "network_conf_dir", path, Path("/etc/cni/net.d"), "configurations of networks by name on this node"
    ),
    Setting(
        "network_kubelet_socket",
        path,
        Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
        "on the node: who tells which devices a pod has",
    ),
    Setting("network_device_info", path, Path("/run/k8s.cni.cncf.io/devinfo"), "folder of device-info files"),
    Setting("api_silence_seconds", number(1, 3600), 90.0, "a watch that is silent so long is dead"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, checked; the table ``SETTINGS`` says what each is.

    ``net_conf`` is the JSON itself, empty if standalone.
    """

    node_name: str
    kubeconfig: str
    standalone: tuple[Net, ...]
    net_conf: str
    cni_socket: Path
    state_dir: Path
    iface: str
    masquerade: bool
    own_table: bool
    pod_mtu: int
    health_address: tuple[str, int]
    health_tls_cert: Path | None
    health_tls_key: Path | None
    health_token_file: Path | None
    run_as_uid: int
    run_as_gid: int
    log_format: str
    log_level: str
    boot_id_file: Path
    resync_seconds: float
    lease_grace_seconds: float
    ipam_mode: str
    offload_probe: bool
    offload_port: int
    revocation: str
    calico_order: str
    policy_log_group: int
    policy_log_denials: int
    failsafe_inbound: tuple[Failsafe, ...]
    failsafe_outbound: tuple[Failsafe, ...]
    network_ipam: bool
    network_namespace: str
    network_defaults: tuple[str, ...]
    network_isolation: bool
    network_global_namespaces: tuple[str, ...]
    network_system_namespaces: tuple[str, ...]
    network_types: tuple[str, ...]
    network_paths: tuple[str, ...]
    network_seconds: float
    network_ask_ms: int
    network_conf_dir: Path
    network_kubelet_socket: Path
    network_device_info: Path
    api_silence_seconds: float


def load(
    flags: Mapping[str, str], environ: Mapping[str, str] = os.environ, default_file: str = DEFAULT_FILE
) -> Settings:
    """Settings from ``flags`` (by setting name, plus ``config``: the file), environment and file.

    Raises ConfigError with every problem at once.
    """
    problems: list[str] = []
    given: dict[str, tuple[str, Any]] = {}
    named = flags.get("config") or environ.get(ENV_PREFIX + "CONFIG", "")
    given.update(_from_file(Path(named or default_file), must_exist=bool(named), problems=problems))
    for setting in SETTINGS:
        if setting.env in environ:
            given[setting.name] = (setting.env, environ[setting.env])
        if setting.name in flags:
            given[setting.name] = (setting.option, flags[setting.name])
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        source, value = given.get(setting.name, ("the default", setting.default))
        if values.get("standalone") and setting.name == "net_conf":
            values[setting.name] = ""  # a file that only nodes of a cluster have
            continue
        try:
            values[setting.name] = setting.parse(value)
        except Rejected as e:
            problems.append(f"{setting.name} (from {source}): {e}")
    if not problems:
        problems += _cross_checks(values)
        problems += [
            f"{name} (from {given[name][0]}) belongs to a cluster, standalone means that there is none: "
            "give one of them"
            for name in ("kubeconfig", "net_conf")
            if values["standalone"] and name in given
        ]
    if problems:
        raise ConfigError(problems)
    return Settings(**values)


def _from_file(file: Path, *, must_exist: bool, problems: list[str]) -> dict[str, tuple[str, Any]]:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        if must_exist:
            problems.append(f"config: {file} does not exist; check --config or {ENV_PREFIX}CONFIG")
        return {}
    except OSError as e:
        problems.append(f"config: {file}: {e.strerror}; make it readable for this user")
        return {}
    try:
        document = _decode(content)
    except ValueError as e:
        problems.append(f"config: {file} is not YAML: {e}")
        return {}
    if document is None:
        return {}
    if not isinstance(document, dict):
        problems.append(f"config: {file} must hold `key: value` lines, not a {type(document).__name__}")
        return {}
    unknown = [key for key in document if key not in _BY_NAME]
    problems += [f"{key} (from {file}): there is no such setting{_nearest(str(key))}" for key in unknown]
    return {key: (str(file), value) for key, value in document.items() if key in _BY_NAME}


def _decode(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        import yaml  # 25 ms that a file in JSON spares

        try:
            return yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        except (yaml.YAMLError, UnicodeDecodeError) as e:
            raise ValueError(" ".join(str(e).split())) from e


def _nearest(key: str) -> str:
    import difflib

    near = difflib.get_close_matches(key, _BY_NAME, 1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(_BY_NAME))}"


def _cross_checks(values: Mapping[str, Any]) -> list[str]:
    problems = []
    cert, key, token = (values[f"health_{name}"] for name in ("tls_cert", "tls_key", "token_file"))
    host = values["health_address"][0]
    if (cert is None) != (key is None):
        problems.append("health_tls_cert and health_tls_key belong together: give both or neither")
    if not is_loopback(host) and cert is None and token is None:
        problems.append(
            f"health_address {host} can be reached from outside: "
            "set health_tls_cert and health_tls_key, or health_token_file, or keep to 127.0.0.1"
        )
    return problems


def is_loopback(host: str) -> bool:
    """Whether a listener on ``host`` is for this machine alone."""
    return host == "localhost" or host == "::1" or host.startswith("127.")
