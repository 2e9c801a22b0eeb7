"""A stand-in for the chart's init container ``install-cni``: programs, then the conflist that makes the node
Ready.

    python -m towpath.lab.canal.install --node NODE --kubeconfig FILE
"""

import argparse
import asyncio
import sys
from pathlib import Path

from towpath.install.node import write
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.kinds import NODES
from towpath.lab.canal import programs

_CNI_BIN, _CNI_CONF = Path("/opt/cni/bin"), Path("/etc/cni/net.d")


async def _install(node: str, kubeconfig: str) -> int:
    """0, or 1 while the Node has no podCIDRs: the init container is then started again."""
    async with Client(config.load(kubeconfig), user_agent="install-cni") as client:
        spec = (await client.get(NODES.raw(), node))["spec"]
    cidrs = spec.get("podCIDRs") or ()
    if not cidrs:
        sys.stderr.write(f"install-cni: node {node} has no podCIDRs yet\n")
        return 1
    programs.install(_CNI_BIN, "calico", *programs.PLUGINS)
    programs.install(Path(programs.BIN), "flanneld", "calico-node")
    write(_CNI_CONF / programs.CONFLIST, programs.conflist(cidrs).encode(), 0o644)
    return 0


def main() -> int:
    """What an installer does each time Canal's pod starts."""
    parser = argparse.ArgumentParser(prog="install-cni")
    for name in ("--node", "--kubeconfig"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    return asyncio.run(_install(given.node, given.kubeconfig))


if __name__ == "__main__":
    sys.exit(main())
