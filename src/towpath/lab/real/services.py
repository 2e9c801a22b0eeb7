"""Configuration of a node's containerd, kubelet and kube-proxy, as text, for the version at hand."""

from typing import Any

import msgspec

from towpath.lab import topology
from towpath.lab.real.binaries import KubeBinaries, Version
from towpath.lab.real.images import PAUSE
from towpath.lab.real.node import RESOLV_CONF, Service
from towpath.lab.topology import POD_NETWORK4, POD_NETWORK6, LabSpec, NodeSpec

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CONTAINERD_CONFIG, KUBELET_CONFIG = "/etc/containerd/config.toml", "/etc/kubernetes/kubelet.yaml"
PROXY_CONFIG = "/etc/kubernetes/kube-proxy.yaml"
KUBELET_KUBECONFIG, PROXY_KUBECONFIG = "/etc/kubernetes/kubelet.conf", "/etc/kubernetes/kube-proxy.conf"
CLIENT_CA = "/etc/kubernetes/ca.crt"
SERVING_CERT, SERVING_KEY = "/etc/kubernetes/kubelet.crt", "/etc/kubernetes/kubelet.key"

_FAIL_CGROUP_V1 = Version(1, 31)
_ENDPOINT_IN_FILE = Version(1, 27)
_DUAL_STACK_ALWAYS = Version(1, 23)


def containerd_config() -> str:
    """For containerd 1.6 and later (2.x reads version 2 as well).

    ``restrict_oom_score_adj``: without CAP_SYS_RESOURCE no score can be lowered, and no sandbox starts.
    """
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""


def kubelet_config(version: Version) -> str:
    """KubeletConfiguration: quick to notice, slow to evict; a client certificate for who asks."""
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": CLIENT_CA},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [],
        "clusterDomain": "cluster.local",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "maxPods": 110,
        "kubeAPIQPS": 50,  # what is usual since 1.27: with 5 a second, 30 pods wait for their status
        "kubeAPIBurst": 100,
        "nodeStatusReportFrequency": "5s",
        "nodeStatusUpdateFrequency": "2s",
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "resolvConf": RESOLV_CONF,
        "serializeImagePulls": False,
        "syncFrequency": "10s",
        "tlsCertFile": SERVING_CERT,
        "tlsPrivateKeyFile": SERVING_KEY,
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    }
    if version >= _FAIL_CGROUP_V1:
        config["failCgroupV1"] = False
    if version >= _ENDPOINT_IN_FILE:
        config["containerRuntimeEndpoint"] = f"unix://{CONTAINERD_SOCKET}"
    if version < _DUAL_STACK_ALWAYS:
        config["featureGates"] = {"IPv6DualStack": True}
    return _text(config)


def proxy_config(version: Version, spec: LabSpec, one: NodeSpec, mode: str = "iptables") -> str:
    """KubeProxyConfiguration. Conntrack's limits are the machine's, not ours to set."""
    networks = [str(n) for n, on in ((POD_NETWORK4, spec.ipv4), (POD_NETWORK6, spec.ipv6)) if on]
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": PROXY_KUBECONFIG},
        "clusterCIDR": ",".join(networks),
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpCloseWaitTimeout": "0s",
            "tcpEstablishedTimeout": "0s",
        },
        "hostnameOverride": one.name,
        "iptables": {"minSyncPeriod": "0.1s", "syncPeriod": "30s"},
        "mode": mode,
    }
    if version < _DUAL_STACK_ALWAYS:
        config["featureGates"] = {"IPv6DualStack": True}
    return _text(config)


def services(binaries: KubeBinaries, spec: LabSpec, one: NodeSpec) -> tuple[Service, ...]:
    """The daemons of a node, in the order they start."""
    version, config = binaries.version, KUBELET_CONFIG
    kubelet = [
        str(binaries.kubelet), f"--config={config}", f"--kubeconfig={KUBELET_KUBECONFIG}",
        f"--hostname-override={one.name}", f"--node-ip={','.join(topology.internal_ips(spec, one))}",
        "--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki", "--v=2",
    ]  # fmt: skip
    if version < _ENDPOINT_IN_FILE:
        kubelet += ["--container-runtime=remote", f"--container-runtime-endpoint=unix://{CONTAINERD_SOCKET}"]
    return (
        Service("containerd", (str(binaries.containerd), "--config", CONTAINERD_CONFIG)),
        Service("kubelet", tuple(kubelet), after=CONTAINERD_SOCKET),
        Service("kube-proxy", (str(binaries.proxy), f"--config={PROXY_CONFIG}", "--v=2")),
    )


def _text(config: dict[str, Any]) -> str:
    return msgspec.json.encode(config).decode()  # JSON is YAML
