"""The files an installation consists of: net-conf.json, the agent's settings, the CNI configuration."""

import json
from typing import Any

from towpath.install.values import Values

CONFIG_FOLDER = "/etc/towpath"
TLS_FOLDER = "/etc/towpath-tls"
NET_CONF, AGENT_CONFIG = "net-conf.json", "agent.yaml"
CNI_TYPE, IPAM_TYPE = "towpath-cni", "towpath-ipam"
CNI_SOCKET = "cni.sock"

DEFAULTS = Values()
_CAPABILITIES = ("portMappings", "bandwidth", "dns", "ipRanges", "ips", "mac", "aliases")


def net_conf(values: Values) -> str:
    """flannel's net-conf.json, as Canal's ConfigMap has it."""
    conf: dict[str, Any] = {"EnableIPv4": values.ipv4 is not None, "EnableIPv6": values.ipv6 is not None}
    if values.ipv4:
        conf["Network"] = str(values.ipv4)
    if values.ipv6:
        conf["IPv6Network"] = str(values.ipv6)
    backend: dict[str, Any] = {"Type": values.backend}
    if values.backend == "vxlan":
        backend |= {"VNI": values.vni, "Port": values.port}
        if values.direct_routing:
            backend["DirectRouting"] = True
    return json.dumps({**conf, "Backend": backend}, indent=2) + "\n"


def agent_config(values: Values) -> dict[str, Any]:
    """The agent's settings; what ``values.agent`` says comes last."""
    return {
        "net_conf": f"{CONFIG_FOLDER}/{NET_CONF}",
        "cni_socket": f"{values.run}/{CNI_SOCKET}",
        "state_dir": values.state,
        # Only where it is not the default: an earlier version, to which one may go back, does not know it.
        **({"network_conf_dir": values.cni_conf} if values.cni_conf != DEFAULTS.cni_conf else {}),
        "health_address": f"{'' if values.metrics_tls_secret else '127.0.0.1'}:{values.health_port}",
        **_tls(values),
        "run_as_uid": values.uid,
        "run_as_gid": values.gid,
        "log_format": "json",
        **values.agent,
    }


def _tls(values: Values) -> dict[str, str]:
    if not values.metrics_tls_secret:
        return {}
    return {"health_tls_cert": f"{TLS_FOLDER}/tls.crt", "health_tls_key": f"{TLS_FOLDER}/tls.key"}


def conflist() -> str:
    """What container runtimes read.

    Runtimes whose libcni is older than 1.2 refuse a version 1.1.0 (containerd 1.6 does); newer ones take the
    highest of ``cniVersions``, and with 1.1.0 ask for STATUS and GC.
    """
    versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
    plugin = {"type": CNI_TYPE, "capabilities": dict.fromkeys(_CAPABILITIES, True)}
    document = {"cniVersion": "1.0.0", "cniVersions": versions, "name": "towpath", "plugins": [plugin]}
    return json.dumps(document, indent=2) + "\n"
