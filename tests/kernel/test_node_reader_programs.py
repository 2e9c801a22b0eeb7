"""Whose programs the node reader asks: those that the network itself would run."""

import subprocess
from pathlib import Path

import msgspec

from preflight_worlds import sound
from towpath.node_reader.host import Host
from towpath.node_reader.read import Reader
from towpath.preflight.kernel_judges import programs

PROGRAM = '#include <stdio.h>\nint main(void) { fputs("%s", stderr); return %d; }\n'


def ipset(root: Path, says: str, code: int) -> Path:
    """A root file system whose ipset says this."""
    (root / "usr/sbin").mkdir(parents=True)
    source = root / "ipset.c"
    source.write_text(PROGRAM % (says, code))
    subprocess.run(["cc", "-static", "-o", root / "usr/sbin/ipset", source], check=True)
    return root


def process(proc: Path, number: int, name: str, root: Path) -> None:
    """As the kernel shows it."""
    (proc / str(number)).mkdir(parents=True)
    (proc / str(number) / "comm").write_text(f"{name}\n")
    (proc / str(number) / "root").symlink_to(root)


def test_the_networks_own_ipset_is_asked_and_not_the_hosts(tmp_path: Path) -> None:
    """rke2#4145: the sets were made by another ipset than the one that the new image brings."""
    host, proc = ipset(tmp_path / "host", "", 0), tmp_path / "proc"
    old = ipset(tmp_path / "old", "Kernel and userspace\\n incompatible", 1)
    process(proc, 11, "bash", old)
    assert Host(host, proc).sets_problem() == ""
    (tmp_path / "flannel").mkdir()
    process(proc, 12, "flanneld", tmp_path / "flannel")  # its image has none
    assert Host(host, proc).sets_problem() == ""
    process(proc, 13, "calico-node", old)
    assert Host(host, proc).sets_problem() == "Kernel and userspace incompatible"


def shim(folder: Path, text: str) -> Path:
    """Multus's, installed there."""
    folder.mkdir(parents=True)
    (folder / "multus-shim").write_text(text)
    return folder


def test_a_shim_of_another_version_than_the_daemon_that_runs_is_found(tmp_path: Path) -> None:
    """keiretsu-labs#2903: the pod is Ready, and the host has the shim of the version before."""
    host, proc, image = tmp_path / "host", tmp_path / "proc", tmp_path / "image"
    installed = shim(host / "opt/cni/bin", "v4.1") / "multus-shim"
    shim(image / "usr/src/multus-cni/bin", "v4.2")
    process(proc, 11, "sleep", image)
    reader, node = Host(host, proc), sound().nodes[0]
    assert reader.image_files() == {}

    assert node.report is not None
    seen = node.report

    def judged() -> list[str]:
        read = {"files": reader.hashes("/opt/cni/bin"), "image_files": reader.image_files()}
        return [found.code for found in programs(node, msgspec.structs.replace(seen, **read))]

    process(proc, 12, "multus-daemon", image)
    assert judged() == ["TP7337"]
    installed.write_text("v4.2")
    assert judged() == []


def test_canals_configuration_is_read_though_multus_is_in_force(tmp_path: Path) -> None:
    folder = tmp_path / "etc/cni/net.d"
    folder.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    canal = '{"name": "pods", "plugins": [{"type": "calico", "ipam": {"type": "host-local"}}]}'
    (folder / "00-multus.conf").write_text('{"name": "multus", "type": "multus-shim"}')
    (folder / "10-canal.conflist").write_text(canal)
    report = Reader(Host(tmp_path, tmp_path / "proc")).report(churn=0, keep=False)
    assert (report.config, report.canal_config) == ("00-multus.conf", canal)
    (folder / "10-canal.conflist").unlink()
    assert Reader(Host(tmp_path, tmp_path / "proc")).report(churn=0, keep=False).canal_config == ""
