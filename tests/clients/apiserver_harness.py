"""The real API server as a process of its own, with TLS, and the kubectl binaries that this machine has."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

KUBECTLS = {
    name: path
    for name, path in (
        ("1.20", "/var/tmp/k120/usr/bin/kubectl"),
        *((f"1.{n}", f"/usr/lib/google-cloud-sdk/bin/kubectl.1.{n}") for n in (27, 29, 31, 33)),
        ("path", "/usr/bin/kubectl"),
    )
    if Path(path).exists()
}


class Lab:
    """A running server: its folder, URL, and ``kubectl`` with a home of its own."""

    def __init__(self, folder: Path, url: str, home: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self.url, self.home, self.process = folder, url, home, process

    def env(self) -> dict[str, str]:
        """Environment of clients."""
        return {**os.environ, "HOME": str(self.home), "KUBECONFIG": str(self.folder / "kubeconfig")}

    def popen(self, binary: str, *args: str) -> "subprocess.Popen[str]":
        """kubectl in the background."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [KUBECTLS[binary], *args], env=self.env(), stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def kubectl(self, binary: str, *args: str, stdin: str = "", ok: bool = True) -> str:
        """Its output (stderr after stdout); asserts that it succeeds, or fails where ``ok`` is false."""
        done = subprocess.run(
            [KUBECTLS[binary], *args],
            env=self.env(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode == 0) == ok, f"{args} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@contextlib.contextmanager
def running(folder: Path, *args: str) -> Iterator[Lab]:
    """Start the control plane in ``folder``, wait until it serves, stop it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "towpath.lab.controlplane", "--dir", str(folder), "--port", "0", *args],
        stdout=subprocess.PIPE,
        text=True,
    )
    listening: threading.Thread | None = None
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        assert line[:1] == ["READY"], line
        # What it says later is read as well: a full pipe would stop it.
        listening = threading.Thread(target=process.stdout.read)
        listening.start()
        home = folder / "home"
        home.mkdir(exist_ok=True)
        yield Lab(folder, line[1], home, process)
    finally:
        process.terminate()
        process.wait(120)
        if listening is not None:
            listening.join()
        if process.stdout:
            process.stdout.close()
