"""Whose programs the node reader asks: those that the network itself would run."""

import subprocess
from pathlib import Path

from towpath.node_reader.host import Host

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
