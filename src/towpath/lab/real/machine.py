"""One real node as the cluster's owner handles it: switch on, reboot, kill a service, look inside."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from towpath.image import seccomp
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.lab import topology
from towpath.lab.real import cgroups, services
from towpath.lab.real.binaries import KubeBinaries
from towpath.lab.real.controlplane import NODES, ControlPlane
from towpath.lab.real.images import Image
from towpath.lab.real.node import Boot, Service
from towpath.lab.real.world import GROUP
from towpath.lab.rundir import LabError
from towpath.lab.topology import LabSpec, NodeSpec
from towpath.model.op import DelLink

_T = TypeVar("_T")
_LOOPBACK = Path("/usr/lib/cni/loopback")  # containerd's hard-coded chain for lo
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONTAINERD_DEADLINE = 30.0


class Machine:
    """A node; off at first. ``disk`` is what survives a reboot."""

    def __init__(
        self, spec: LabSpec, one: NodeSpec, binaries: KubeBinaries, plane: ControlPlane, folder: Path
    ) -> None:
        self.spec, self.one, self.binaries = spec, one, binaries
        self.disk = folder / one.name / "disk"
        self.disk.mkdir(parents=True, exist_ok=True)
        self.boot_id = ""
        self._netns = -1
        self._starter: subprocess.Popen[bytes] | None = None
        self.init = 0
        self._configure(plane)

    @property
    def group(self) -> str:
        """Its control group, relative to each hierarchy."""
        return f"{os.environ[GROUP]}/{self.one.name}"

    def switch_on(self) -> None:
        """Cable, namespaces, process 1. Raises LabError, OSError, KernelRefused."""
        self._netns = new_netns()
        with closing(LinuxKernel(nft=False)) as kernel:
            kernel.apply(topology.cable_ops(self.spec, self.one), self._netns)
        self.inside(self._address)
        self.boot_id = str(uuid.uuid4())
        found = cgroups.hierarchies()
        cgroups.make(found, self.group)
        boot = Boot(
            name=self.one.name, disk=str(self.disk), group=self.group, boot_id=self.boot_id,
            path=f"{self.binaries.folder}:{_PATH}", services=self._services(),
        )  # fmt: skip
        self._starter = subprocess.Popen(
            [sys.executable, "-m", "towpath.lab.real.node", str(self._netns)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._netns,),
        )
        assert self._starter.stdin and self._starter.stdout  # noqa: S101 (asked for above)
        self._starter.stdin.write(msgspec.json.encode(boot))
        self._starter.stdin.close()
        answer = self._starter.stdout.readline().strip()
        if not answer:
            raise LabError(f"node {self.one.name} did not boot", code="TP9027")
        self.init = int(answer)

    def switch_off(self) -> None:
        """As pulling the plug: every process and namespace of it is gone, and its switch port."""
        if self._starter is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self._starter.wait()
        assert self._starter.stdout  # noqa: S101
        self._starter.stdout.close()
        self._starter, self.init = None, 0
        os.close(self._netns)
        with closing(LinuxKernel(nft=False)) as kernel:
            kernel.apply([DelLink(name=self.one.port)])
        if not cgroups.remove(cgroups.hierarchies(), self.group):
            raise LabError(f"control group {self.group} is still in use", code="TP9027")

    def reboot(self) -> None:
        """Off and on, with another boot id."""
        self.switch_off()
        self.switch_on()

    def destroy(self) -> None:
        """Off, and the disk erased."""
        self.switch_off()
        shutil.rmtree(self.disk, ignore_errors=True)

    def inside(self, function: Callable[[], _T]) -> _T:
        """Call ``function`` in the node's network namespace."""
        return run_in(self._netns, function)

    def run(self, *command: str, timeout: float = 60.0, check: bool = True) -> str:
        """Run a program in the node's namespaces; what it prints. Raises LabError where it fails."""
        # The root of /proc/PID/root is the node's, and its /proc shows the node's processes.
        enter = ("nsenter", "-t", str(self.init), "-m", "-n", "-u", "-i", "-p", "-C")
        done = subprocess.run(
            [*enter, *command], capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise LabError(f"{' '.join(command)} on {self.one.name}: {done.stderr.strip()}")
        return done.stdout

    def import_images(self, images: tuple[Image, ...]) -> None:
        """Load ``images``, under their tag and, as if pulled, their digest. Raises LabError."""
        deadline = time.monotonic() + _CONTAINERD_DEADLINE
        socket = self.path(services.CONTAINERD_SOCKET)
        while not socket.exists():
            if time.monotonic() > deadline:
                raise LabError(f"containerd on {self.one.name} does not start", code="TP9027")
            time.sleep(0.05)
        ctr = (str(self.binaries.ctr), "-n", "k8s.io", "images")
        for image in images:
            self.run(*ctr, "import", str(image.archive), timeout=120)
            self.run(*ctr, "tag", "--force", image.reference, image.by_digest)

    def path(self, inside: str) -> Path:
        """A path of the node as this process reaches it."""
        return Path(f"/proc/{self.init}/root", inside.lstrip("/"))

    def service_pid(self, name: str) -> int:
        """Process id of a service, 0 while it does not run."""
        for child in _children(self.init):
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == name[:15]:
                    return child
        return 0

    def kill_service(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill containerd, kubelet or kube-proxy; process 1 starts it again. Raises LabError."""
        pid = self.service_pid(name)
        if not pid:
            raise LabError(f"{name} does not run on {self.one.name}")
        os.kill(pid, number)

    def pod_process(self, pod: str) -> int:
        """A process of pod ``pod``'s containers (they have its name as HOSTNAME). Raises LabError."""
        wanted = f"HOSTNAME={pod}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if wanted in (entry / "environ").read_bytes().split(b"\0"):
                        return int(entry.name)
        raise LabError(f"no process of pod {pod}")

    def _services(self) -> tuple[Service, ...]:
        return services.services(self.binaries, self.spec, self.one)

    def _address(self) -> None:
        with closing(LinuxKernel(nft=False)) as kernel:
            kernel.apply(topology.node_ops(self.spec, self.one))

    def _configure(self, plane: ControlPlane) -> None:
        """What an installer of Kubernetes would leave on the disk."""
        name, version = self.one.name, self.binaries.version
        files = {
            services.CONTAINERD_CONFIG: services.containerd_config(),
            services.KUBELET_CONFIG: services.kubelet_config(version),
            services.PROXY_CONFIG: services.proxy_config(version, self.spec, self.one),
            services.KUBELET_KUBECONFIG: plane.kubeconfig(f"kubelet-{name}", f"system:node:{name}", NODES),
            services.PROXY_KUBECONFIG: plane.kubeconfig("kube-proxy", "system:kube-proxy"),
            services.CLIENT_CA: plane.pki.ca.read_text(),
        }
        hosts = (name, *topology.internal_ips(self.spec, self.one))
        serving = plane.pki.issue(f"serving-{name}", f"system:node:{name}", NODES, hosts)
        files[services.SERVING_CERT] = serving.certificate.read_text()
        files[services.SERVING_KEY] = serving.key.read_text()
        for path, text in files.items():
            # /etc/kubernetes/kubelet.yaml is etc-kubernetes/kubelet.yaml on the disk (rootfs.NODE_PATHS)
            target = self.disk / re.sub(r"^/(etc)/(\w+)/", r"\1-\2/", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        profile = self.disk / "var-lib-kubelet" / "seccomp" / seccomp.NAME
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.write_text(seccomp.text())
        binaries = self.disk / "opt-cni" / "bin"
        binaries.mkdir(parents=True, exist_ok=True)
        if not _LOOPBACK.exists():
            raise LabError(f"{_LOOPBACK} is missing", "apt install containernetworking-plugins", "TP9027")
        shutil.copy2(_LOOPBACK, binaries)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
