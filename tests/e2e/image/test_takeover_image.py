"""The image of a migration's Jobs: with what is in it, Felix's rules are read, by both kinds of iptables."""

import subprocess
from pathlib import Path

import pytest

from towpath.image import build, lock

ADDED = """
*filter
:cali-FORWARD - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A cali-FORWARD -m set --match-set cali40s:x src -m mark --mark 0x0/0x10000 -j RETURN
-A cali-FORWARD -p tcp -m multiport --dports 80,443 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("takeover")
    built = build.build(build.project(), lock.machine(), folder / "image", print, kind=build.TAKEOVER)
    root = folder / "root"
    root.mkdir()
    tag = build.TAKEOVER.reference.rpartition(":")[2]
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{built.layout}:{tag}", root], check=True)
    return root


def in_a_node(root: Path, script: str) -> str:
    """What the image's own Python says, in a network namespace of its own."""
    inside = 'mount -t proc proc "$1/proc" && exec env PATH="$2" chroot "$1" /usr/bin/python3 -c "$3"'
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-ec", inside, "sh"]
    done = subprocess.run([*command, str(root), path(), script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def path() -> str:
    return next(line.partition("=")[2] for line in build.ENV if line.startswith("PATH="))


@pytest.mark.parametrize("backend", ["legacy", "nft"])
def test_felixs_rules_are_read_by_the_programs_in_it(root: Path, backend: str) -> None:
    script = f"""
import subprocess
from towpath.migrate.firewall import Firewall
subprocess.run(["ipset", "create", "cali40s:x", "hash:net"], check=True)
subprocess.run(["iptables-{backend}-restore", "--noflush"], input={ADDED!r}, text=True, check=True)
firewall = Firewall()
assert all(firewall.available(b, f) for b in ("legacy", "nft") for f in (4, 6))
print(sorted(firewall.tables("{backend}", 4)["filter"].chains), firewall.sets())
"""
    said = in_a_node(root, script)
    assert "cali-FORWARD" in said
    assert "cali40s:x" in said


def test_it_takes_over_and_hands_back(root: Path) -> None:
    for verb in ("takeover", "handback"):
        command = [
            "unshare",
            "--root",
            str(root),
            "/usr/bin/python3",
            "-m",
            "towpath",
            "node",
            verb,
            "--help",
        ]
        assert verb in subprocess.run(command, capture_output=True, text=True, check=True).stdout
