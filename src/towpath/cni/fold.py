"""Go's encoding/json matches keys whatever their case; so must everyone who reads what Go programs read.

CNI's own test data says ``bandWidth``, and runtimes write ``CNIVersion``.
"""

from typing import Any

# fmt: off
KEYS = (
    "address", "advmss", "aliases", "args", "bandwidth", "capabilities", "cni", "cniVersion", "containerID",
    "containerPort", "disableCheck", "disableGC", "dns", "domain", "dst", "egressBurst", "egressRate",
    "gateway", "gw", "hostIP", "hostPort", "ifname", "ingressBurst", "ingressRate", "interface",
    "interfaces", "ip", "ip4", "ip6", "ipRanges", "ipam", "ips", "mac", "mtu", "name", "nameservers",
    "options", "pciID", "portMappings", "prevResult", "priority", "protocol", "rangeEnd", "rangeStart",
    "ranges", "routes", "runtimeConfig", "sandbox", "scope", "search", "searches", "servers", "socketPath",
    "subnet", "table", "type", "version", "cni.dev/valid-attachments", "cni.dev/attachments",
)
# fmt: on
_KNOWN = {key.casefold(): key for key in KEYS}


def fold(value: Any) -> Any:
    """A decoded document with every known key in its proper spelling, and without null members.

    Go leaves a field alone where JSON says null. Of keys that differ only in case the last one counts.
    Raises RecursionError for a document nested too deeply.
    """
    if isinstance(value, dict):
        return {_KNOWN.get(k.casefold(), k): fold(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [fold(v) for v in value]
    return value
