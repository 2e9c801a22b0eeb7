"""A cluster of real Kubernetes programs in this process's world (``world.run``): control plane and nodes.

    cluster = RealCluster(find_binaries(print), build_images(print), lab_spec({}, nodes=3), Path("/lab"))
    cluster.start()
    cluster.kubectl("get", "nodes"); cluster.machines["n1"].reboot(); cluster.stop()

Towpath is not installed yet then, so nodes are NotReady: that is the installation's business.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.lab import topology
from towpath.lab.real.binaries import KubeBinaries
from towpath.lab.real.controlplane import MASTERS, ControlPlane, Settings
from towpath.lab.real.daemon import Daemon
from towpath.lab.real.images import Image
from towpath.lab.real.machine import Machine
from towpath.lab.rundir import LabError
from towpath.lab.topology import LabSpec, NodeSpec

_T = TypeVar("_T")
_POLL = 0.1
OUTSIDE_PORT = 8080


class RealCluster:
    """Everything off at first; ``folder`` holds all files."""

    def __init__(
        self, binaries: KubeBinaries, images: tuple[Image, ...], spec: LabSpec, folder: Path
    ) -> None:
        self.binaries, self.images, self.spec, self.folder = binaries, images, spec, folder
        self.settings = Settings(
            addresses=tuple(topology.api_addresses(spec)),
            cluster_cidrs=tuple(topology.networks(spec, topology.POD_NETWORK4, topology.POD_NETWORK6)),
            service_cidrs=tuple(
                topology.networks(spec, topology.SERVICE_NETWORK4, topology.SERVICE_NETWORK6)
            ),
        )
        self.plane = ControlPlane(binaries, folder / "plane", self.settings)
        self.kubeconfig = folder / "admin.kubeconfig"
        self.machines: dict[str, Machine] = {}
        self._outside = -1
        self._echo: Daemon | None = None

    def start(self) -> None:
        """Network, control plane and nodes; returns when the nodes have registered. Raises LabError."""
        with closing(LinuxKernel(nft=False)) as kernel:
            kernel.apply(topology.root_ops(self.spec))
            self._start_outside(kernel)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(self.plane.kubeconfig("admin", "kubernetes-admin", MASTERS))
        for one in self.spec.nodes:
            self._switch_on(one)
        loading = [
            threading.Thread(target=m.import_images, args=(self.images,)) for m in self.machines.values()
        ]
        for thread in loading:
            thread.start()
        self.plane.start()
        for thread in loading:
            thread.join()
        self.wait_until(self._registered, "nodes registered", 300)

    def add_node(self, one: NodeSpec) -> Machine:
        """Plug in another node and switch it on; returns when it has registered. Raises LabError."""
        machine = self._switch_on(one)
        machine.import_images(self.images)
        self.wait_until(self._registered, f"node {one.name} registered", 300)
        return machine

    def remove_node(self, name: str) -> None:
        """Switch a node off for good; its Node object is the caller's business."""
        self.machines.pop(name).destroy()

    def stop(self) -> None:
        """Everything off."""
        for machine in self.machines.values():
            machine.switch_off()
        self.plane.stop(grace=0)
        if self._echo:
            self._echo.stop(0)

    def kubectl(
        self, *args: str, stdin: str | None = None, timeout: float = 400.0, check: bool = True
    ) -> str:
        """What kubectl prints. Raises LabError where it fails."""
        # Without a cache it would ask for every API group each time; the usual place is read-only here.
        files = (f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.folder / 'kubectl'}")
        command = [str(self.binaries.kubectl), *files, *args]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise LabError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *args: str) -> Any:
        """The object or list ``kubectl get ARGS -o json`` shows."""
        return json.loads(self.kubectl("get", *args, "-o", "json"))

    def apply(self, objects: Iterable[dict[str, Any]]) -> None:
        """``kubectl apply`` of objects. Raises LabError."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def outside(self, function: Callable[[], _T]) -> _T:
        """Call ``function`` in the network namespace of the outside host."""
        return run_in(self._outside, function)

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float) -> float:
        """Wait for ``condition`` to be true; how long it took. Raises LabError with what it last said.

        A condition that raises LabError is asked again: an API server may be away.
        """
        begun, last = time.monotonic(), ""
        while True:
            try:
                if condition():
                    return time.monotonic() - begun
            except LabError as failed:
                last = f": {failed}"
            if time.monotonic() - begun > seconds:
                raise LabError(f"not within {seconds:.0f} s: {what}{last}")
            time.sleep(_POLL)

    def _registered(self) -> bool:
        known = {item["metadata"]["name"] for item in self.get("nodes")["items"]}
        return known >= set(self.machines)

    def _switch_on(self, one: NodeSpec) -> Machine:
        machine = Machine(self.spec, one, self.binaries, self.plane, self.folder / "nodes")
        machine.switch_on()
        self.machines[one.name] = machine
        return machine

    def _start_outside(self, kernel: LinuxKernel) -> None:
        self._outside = new_netns()
        root, host = topology.outside_ops(self.spec)
        kernel.apply(root, self._outside)

        def configure() -> None:
            with closing(LinuxKernel(nft=False)) as inside:
                inside.apply(host)

        self.outside(configure)
        self._echo = Daemon("outside", self.folder / "outside.log", self._outside)
        self._echo.start([sys.executable, "-m", "towpath.lab.real.echo", str(OUTSIDE_PORT)], dict(os.environ))
