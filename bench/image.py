"""The image: its size, how long it takes to build, and what an agent started from it costs with 100 pods.

The agent is started as its pod starts it: in the image's root, by the launcher, as another user whose
bounding set is NET_ADMIN. It attached the pods before, is killed, and adopts them. There is no peer: Canal's
images cannot be had here. The last line of stdout is JSON; progress goes to stderr.
"""

import contextlib
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import yaml

from bench.cni import enter_namespaces
from bench.cni_exec import NODE, POD_CIDR, Chain, Sandbox, Sandboxes
from towpath.image import build, lock, pack
from towpath.image.audit.reading import read
from towpath.install.daemonset import LAUNCHER
from towpath.install.node import SHIM

ROOT = Path(__file__).parents[1]
PODS, STARTS, IDLE_SECONDS = 100, 7, 60
HEALTH = "127.0.0.1:9109"
UID = build.UID
_NET_ADMIN, _CAPBSET_READ, _CAPBSET_DROP = 12, 23, 24


def main() -> None:
    """Measure, print, exit 0."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-bench-image-", dir="/var/tmp"))
    folder.chmod(0o755)
    sandboxes = Sandboxes()
    processes: list[subprocess.Popen[str]] = []
    mounted: list[Path] = []
    attached: list[Sandbox] = []
    try:
        figures, root = _built(folder)
        enter_namespaces()
        mounted += _mounts(root)
        names = [f"pod-{n}" for n in range(PODS)]
        processes.append(_api(folder, names))
        _settings(root, folder)
        processes.append(_started(root)[0])
        chain = _chain(folder, root)
        say(f"attaching {PODS} pods")
        attached = [sandboxes.make(name) for name in names]
        for sandbox in attached:
            chain.add(sandbox, {})
        say(f"starting {STARTS} times")
        took = []
        for _ in range(STARTS):
            processes[-1].kill()
            processes[-1].wait()
            processes[-1], seconds = _started(root)
            took.append(seconds)
        figures["start_ready_s"] = round(statistics.median(took), 3)
        say(f"idle for {IDLE_SECONDS} s")
        figures |= _idle(processes[-1].pid)
        print(json.dumps(figures), flush=True)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        for place in reversed(mounted):
            subprocess.run(["umount", "-l", place], check=False)
        for sandbox in attached:
            sandboxes.remove(sandbox)
        sandboxes.close()
        shutil.rmtree(folder, ignore_errors=True)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def _built(folder: Path) -> tuple[dict[str, float], Path]:
    build.build(build.project(), lock.machine(), folder / "warm", say)  # packages and wheels are cached
    begun = time.perf_counter()
    built = build.build(build.project(), lock.machine(), folder / "image", say)
    seconds = time.perf_counter() - begun
    image = read(built.layout)
    files = len(image.files)
    image.spool.close()
    root = folder / "root"
    tag = build.REFERENCE.rpartition(":")[2]
    command = ["umoci", "raw", "unpack", "--image", f"{built.layout}:{tag}", str(root)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    size = round(pack.compressed_size(built.layout) / 1e6, 1)
    return {"compressed_mb": size, "files": files, "build_s": round(seconds, 1)}, root


def _mounts(root: Path) -> list[Path]:
    """What a runtime and the pod's volumes put into a container."""
    (root / "host/proc/sys/net").mkdir(parents=True)
    for source, place in (("/proc", root / "proc"), ("/proc/sys/net", root / "host/proc/sys/net")):
        subprocess.run(["mount", "--rbind", source, place], check=True)
    return [root / "proc", root / "host/proc/sys/net"]


def _api(folder: Path, names: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.cni_api", str(folder)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=sys.stderr, text=True, cwd=ROOT)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n".join(names))
    process.stdin.close()
    if process.stdout.readline() != "READY\n":
        sys.exit("the API server did not start")
    return process


def _settings(root: Path, folder: Path) -> None:
    settings = {
        "node_name": NODE,
        "kubeconfig": "/etc/towpath/kubeconfig",
        "net_conf": {"Network": POD_CIDR, "Backend": {"Type": "vxlan"}},
        "cni_socket": "/run/towpath/cni.sock",
        "state_dir": "/var/lib/towpath",
        "health_address": HEALTH,
        "run_as_uid": UID,
        "run_as_gid": UID,
        "log_level": "warning",
    }
    (root / "etc/towpath").mkdir()
    (root / "etc/towpath/agent.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy2(folder / "kubeconfig", root / "etc/towpath/kubeconfig")
    for name in ("run/towpath", "var/lib/towpath"):
        (root / name).mkdir()
        os.chown(root / name, 0, UID)
        (root / name).chmod(0o770)


def _chain(folder: Path, root: Path) -> Chain:
    plugins = folder / "bin"
    plugins.mkdir()
    shutil.copy2(SHIM, plugins / "towpath-cni")
    (plugins / "towpath-cni.socket").write_text(f"{root}/run/towpath/cni.sock\n")
    return Chain("towpath", plugins, [{"type": "towpath-cni"}])


def _started(root: Path) -> tuple[subprocess.Popen[str], float]:
    """The agent's process, and how long it took from its start to Ready."""

    def contained() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        os.chroot(root)
        os.chdir("/")
        for number in range(64):
            if number != _NET_ADMIN and libc.prctl(_CAPBSET_READ, number, 0, 0, 0) == 1:
                libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)

    command = [LAUNCHER, "/usr/bin/python3", "-m", "towpath.agent", "--config=/etc/towpath/agent.yaml"]
    environment = dict(line.split("=", 1) for line in build.ENV)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, preexec_fn=contained, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, text=True
    )
    while process.poll() is None and time.perf_counter() - begun < 30:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HEALTH}/readyz", timeout=5):
            return process, time.perf_counter() - begun
        time.sleep(0.005)
    process.kill()
    sys.exit("the agent did not become ready")


def _idle(pid: int) -> dict[str, float]:
    time.sleep(5)
    before, begun = _ticks(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    used = (_ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun)
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    return {"rss_mb": round(kilobytes / 1024, 1), "idle_cpu_pct": round(100 * used, 2)}


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    main()
