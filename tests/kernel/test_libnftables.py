"""The library where it is missing, broken or refused."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from towpath.kernel.libnftables import JSON, NftContext, NftError

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
WITHOUT = """
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.port import KernelRefused
LinuxKernel(nft=False).close()
try:
    LinuxKernel()
except KernelRefused as refused:
    print(refused)
"""


@pytest.fixture
def nft() -> Iterator[NftContext]:
    made = NftContext()
    yield made
    made.close()


def loaded_library() -> str:
    """Where the dynamic linker found it."""
    NftContext().close()
    maps = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in maps if "libnftables" in line)


def test_one_sentence_names_the_missing_package() -> None:
    script = 'mount --bind /dev/null "$1" && exec "$2" -c "$3"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", loaded_library(), sys.executable, WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == (
        "load libnftables.so.1: nftables' library is not installed (install libnftables1)\n",
        "",
    )


@pytest.mark.parametrize(
    ("commands", "place", "reason", "number"),
    [
        (("list table inet absent",), 0, "No such file or directory", errno.ENOENT),
        (("add table inet t", "delete set inet t absent"), 1, "No such file or directory", errno.ENOENT),
        (("add table inet t", "add chain inet t c", "add rule inet t c bogus word"), 2, "No symbol type", 0),
        (("add table inet t", "add chain inet t masquerade"), 1, "syntax error, unexpected masquerade", 0),
        (
            ("add table inet t", "add element inet t s { 1 }", "add table inet u"),
            1,
            "No such file",
            errno.ENOENT,
        ),
    ],
)
def test_an_error_names_the_command_and_nothing_is_done(
    nft: NftContext, commands: tuple[str, ...], place: int, reason: str, number: int
) -> None:
    before = nft.run("list tables inet", flags=JSON)
    with pytest.raises(NftError) as caught:
        nft.run(*commands)
    assert (caught.value.command, caught.value.errno) == (commands[place], number)
    assert caught.value.reason.startswith(reason)
    assert nft.run("list tables inet", flags=JSON) == before


def test_a_closed_context_says_so() -> None:
    nft = NftContext()
    nft.close()
    nft.close()
    with pytest.raises(NftError, match="closed"):
        nft.run("list tables")
