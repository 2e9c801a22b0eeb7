"""What the lab applies to its cluster: the agent as the DaemonSet an installation would have."""

from typing import Any

from towpath import __version__
from towpath.catalogue import load
from towpath.install.migration import only_labelled
from towpath.lab import canal, topology
from towpath.lab.canal import chart
from towpath.lab.node import AGENT_CONFIG, AGENT_KUBECONFIG, CNI_BIN, CONFLIST, HEALTH_PORT
from towpath.lab.topology import LabSpec

NAMESPACE, DAEMONSET = "kube-system", "towpath"
HOST_PATHS = {"config": "/etc/towpath", "run": "/run/towpath", "state": "/var/lib/towpath"}
CANAL_RELEASE = "v1.32.1+rke2r1"  # so that the next one can be tried
IMAGE = f"docker.io/towpath/towpath-agent:v{__version__}"


def service_account() -> dict[str, Any]:
    """The agent's identity."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": DAEMONSET, "namespace": NAMESPACE},
    }


def network(spec: LabSpec) -> list[dict[str, Any]]:
    """The lab's network: Towpath's agent; or Canal, with Towpath installed as before a migration."""
    if spec.cni == "towpath":
        return [daemonset()]
    families = ",".join(str(net.version) for net in topology.pod_networks(spec))
    release = load.builtin().release(CANAL_RELEASE)
    commands = chart.running(families)
    return [
        canal.config_map(topology.net_conf(spec)),
        canal.daemonset(release, commands=commands, kubeconfig=str(AGENT_KUBECONFIG)),
        _migrating(daemonset()),
    ]


def _migrating(made: dict[str, Any]) -> dict[str, Any]:
    """On labelled nodes only, after the installer, which has the agent hold still where Canal is in force."""
    spec = made["spec"]["template"]["spec"]
    command = ["python3", "-m", "towpath.install.node", f"--cni-bin={CNI_BIN}", f"--conflist={CONFLIST}"]
    command += [f"--socket-folder={HOST_PATHS['run']}", f"--state={HOST_PATHS['state']}"]
    command += ["--uid=0", "--gid=0"]  # a lab has no other user
    spec["affinity"] = only_labelled()
    spec["initContainers"] = [{"name": "install-cni", "image": IMAGE, "command": command}]
    return made


def daemonset() -> dict[str, Any]:
    """The agent on every node: host network, one capability, tolerating everything."""
    labels = {"app.kubernetes.io/name": "towpath", "k8s-app": "towpath"}
    container = {
        "name": "agent",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "towpath.agent", "--config", str(AGENT_CONFIG)],
        "env": [{"name": "TOWPATH_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": HEALTH_PORT, "host": "127.0.0.1"},
            "periodSeconds": 5,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": HEALTH_PORT, "host": "127.0.0.1"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        },
        "volumeMounts": [
            {"name": name, "mountPath": path, "readOnly": name == "config"}
            for name, path in HOST_PATHS.items()
        ],
    }
    spec = {
        "hostNetwork": True,
        "serviceAccountName": DAEMONSET,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 5,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [
            {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
            for name, path in HOST_PATHS.items()
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": DAEMONSET, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "towpath"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
