"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler as processes of this one.

    plane = ControlPlane(binaries, folder, Settings(addresses=("172.30.0.1", "fd00:172:30::1")), netns)
    plane.start()                  # returns when /readyz says ok and the controllers run; raises LabError
    plane.kubeconfig("admin", "kubernetes-admin", MASTERS)          # text; client certificate inside
    plane.kubeconfig("kubelet-n1", "system:node:n1", NODES)
    plane.kubeconfig("proxy", "system:kube-proxy")
    plane.pki.issue("n1", "n1", hosts=("172.30.0.11",))             # a kubelet's serving certificate
    plane.pki.ca, plane.settings.url                                # for everybody else
    plane.stop_api(); plane.start_api()                             # the fault; etcd and controllers stay
    plane.tend()                   # starts again what has ended by itself
    plane.stop()

``netns`` is a descriptor of a network namespace whose loopback is up and which has ``addresses``; None is the
caller's own. Call everything from one thread that stays: the processes die with it, and so with this process,
in whatever way it ends. All files are in ``folder``: pki/, etcd/, log/.
"""

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from towpath.kernel.netns import run_in
from towpath.lab.real import flags
from towpath.lab.real.binaries import KubeBinaries
from towpath.lab.real.daemon import Daemon
from towpath.lab.real.flags import Settings
from towpath.lab.real.pki import MASTERS, NODES, Pki
from towpath.lab.rundir import LabError

__all__ = ["MASTERS", "NODES", "ControlPlane", "Settings"]

_DEADLINE, _POLL = 90.0, 0.1
_PROBE_SECONDS = 5.0


class ControlPlane:
    """The four programs; stopped at first."""

    def __init__(
        self, binaries: KubeBinaries, folder: Path, settings: Settings, netns: int | None = None
    ) -> None:
        """Makes the certificates that are missing. Raises OSError."""
        self.binaries, self.folder, self.settings, self._netns = binaries, folder, settings, netns
        self.pki = Pki(folder / "pki")
        self._files = self._write_files()
        self._etcd, self._api, self._controllers, self._scheduler = (
            Daemon(name, folder / "log" / f"{name}.log", netns)
            for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
        )

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by program; 0 for one that does not run."""
        return {daemon.name: daemon.pid for daemon in self._daemons()}

    def kubeconfig(self, name: str, user: str, group: str = "", server: str = "") -> str:
        """A kubeconfig with a certificate kept as ``name``; ``server`` defaults to ``settings.url``."""
        return self.pki.kubeconfig(server or self.settings.url, name, user, group)

    def start(self, deadline: float = _DEADLINE) -> None:
        """Start everything and wait until it is ready. Raises LabError; nothing runs then."""
        try:
            self._etcd.start(flags.etcd(self.binaries, self._files))
            self.start_api(deadline)
            self.tend()
        except BaseException:
            self.stop(grace=0)
            raise

    def start_api(self, deadline: float = _DEADLINE) -> None:
        """Start the API server and wait until it is ready. Raises LabError."""
        if not self._api.pid:
            self._api.start(flags.apiserver(self.binaries, self.settings, self._files))
        self.wait_ready(deadline)

    def stop_api(self, grace: float = 0.0) -> None:
        """Stop the API server (without ``grace`` it is killed); connections are refused from then on."""
        self._api.stop(grace)

    def restart_controllers(self) -> None:
        """Begin kube-controller-manager and kube-scheduler anew."""
        for daemon in (self._controllers, self._scheduler):
            daemon.stop(5.0)
        self.tend()

    def tend(self) -> None:
        """Start what does not run and should: all but an API server that ``stop_api`` stopped."""
        starters: list[tuple[Daemon, Callable[[], list[str]]]] = [
            (self._etcd, lambda: flags.etcd(self.binaries, self._files)),
            (self._controllers, lambda: flags.controller_manager(self.binaries, self.settings, self._files)),
            (self._scheduler, lambda: flags.scheduler(self.binaries, self.settings, self._files)),
        ]
        if self._api.ended:
            starters.append((self._api, lambda: flags.apiserver(self.binaries, self.settings, self._files)))
        for daemon, argv in starters:
            if not daemon.pid:
                daemon.start(argv())

    def stop(self, grace: float = 5.0) -> None:
        """Stop everything, etcd last; data, certificates and logs stay."""
        for daemon in reversed(self._daemons()):
            daemon.stop(grace)

    def wait_ready(self, deadline: float = _DEADLINE) -> None:
        """Wait until the API server is ready. Raises LabError, at once when it or etcd has ended."""
        until = time.monotonic() + deadline
        while problem := self.problem():
            self._etcd.require_alive()
            self._api.require_alive()
            if time.monotonic() > until:
                hint = f"its log is {self._api.log}"
                raise LabError(
                    f"kube-apiserver was not ready after {deadline:.0f} s: {problem}", hint, "TP9024"
                )
            time.sleep(_POLL)

    def problem(self) -> str:
        """What ``/readyz`` lacks, "" when the API server is ready."""
        try:
            return self._probe() if self._netns is None else run_in(self._netns, self._probe)
        except (OSError, http.client.HTTPException) as failed:
            return str(failed) or type(failed).__name__

    def _probe(self) -> str:
        trust = ssl.create_default_context(cafile=str(self.pki.ca))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.settings.port, timeout=_PROBE_SECONDS, context=trust
        )
        try:
            connection.request("GET", "/readyz?verbose")
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status == 200:
            return ""
        failing = [line for line in text.splitlines() if line.startswith("[-]")]
        return ", ".join(failing) or f"HTTP {answer.status}"

    def _daemons(self) -> list[Daemon]:
        return [self._etcd, self._api, self._controllers, self._scheduler]

    def _write_files(self) -> flags.Files:
        (self.folder / "etcd").mkdir(parents=True, exist_ok=True, mode=0o700)
        front_ca, front = self.pki.front_proxy()
        local = ("127.0.0.1", "localhost")
        return flags.Files(
            data=self.folder / "etcd",
            ca=self.pki.ca,
            ca_key=self.pki.folder / "ca.key",
            server=self.pki.issue("server", "kube-apiserver", hosts=self.settings.server_names()),
            etcd=self.pki.issue("etcd", "etcd", hosts=local),
            etcd_client=self.pki.issue("etcd-client", "kube-apiserver"),
            kubelet_client=self.pki.issue("kubelet-client", "kube-apiserver-kubelet-client", MASTERS),
            front_ca=front_ca,
            front=front,
            service_accounts=self.pki.service_account_key(),
            controller_manager=self._local_kubeconfig("kube-controller-manager"),
            scheduler=self._local_kubeconfig("kube-scheduler"),
        )

    def _local_kubeconfig(self, program: str) -> Path:
        path = self.folder / f"{program}.kubeconfig"
        text = self.kubeconfig(program, f"system:{program}", server=self.settings.local_url)
        path.touch(mode=0o600)
        path.write_text(text)
        return path
