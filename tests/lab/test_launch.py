"""However a lab ends, nothing of it stays: no process, namespace, link or file."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from lab_objects import TOWPATH, eventually, towpath

from towpath.lab import launch, namespaces, rundir
from towpath.lab.rundir import LabError

pytestmark = pytest.mark.lab


def processes_of(marker: str) -> list[int]:
    """Processes of the lab: forks of the one that was started with ``--name MARKER``, and its janitor."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(entry.name))
    return found


def namespaces_of(pids: list[int]) -> set[str]:
    """Network and user namespaces the processes are in, other than ours."""
    own = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("net", "user")}
    seen = set()
    for pid in pids:
        for kind in ("net", "user"):
            try:
                seen.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
            except OSError:
                continue
    return seen - own


def in_use(wanted: set[str]) -> set[str]:
    """Which of the namespaces still have a process."""
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    return namespaces_of(pids) & wanted


def started(name: str) -> tuple[int, int, set[str]]:
    """Bring a one-node lab up: keeper, supervisor, namespaces."""
    towpath("up", "--name", name, "--nodes", "1")
    keeper = rundir.read_about(rundir.path_of(name)).keeper
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return keeper, int(children[0]), namespaces_of(processes_of(name))


def assert_nothing_stays(name: str, seen: set[str]) -> None:
    eventually(lambda: not rundir.path_of(name).exists())
    eventually(lambda: not processes_of(name))
    eventually(lambda: not in_use(seen))


@pytest.mark.usefixtures("runtime_dir")
class TestEnds:
    def test_down(self) -> None:
        *_, seen = started("ends-down")
        assert len(seen) >= 3
        towpath("down", "--name", "ends-down")
        assert_nothing_stays("ends-down", seen)

    @pytest.mark.parametrize("victim", ["keeper", "supervisor", "everybody"])
    def test_kill_9(self, victim: str) -> None:
        name = f"ends-{victim}"
        keeper, supervisor, seen = started(name)
        janitors = [pid for pid in processes_of(name) if Path(f"/proc/{pid}/comm").read_text() == "sh\n"]
        victims = {
            "keeper": [keeper],
            "supervisor": [supervisor],
            # as `pkill -9 -f towpath` would, whose pattern the janitor's command line does not match
            "everybody": [pid for pid in processes_of(name) if pid not in janitors],
        }[victim]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert_nothing_stays(name, seen)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    def test_an_interrupted_start(self, number: signal.Signals) -> None:
        name = f"ends-{number.name.lower()}"
        up = subprocess.Popen(
            [*TOWPATH, "lab", "up", "--name", name, "--nodes", "1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert up.stderr is not None
        up.stderr.readline()
        seen = eventually(lambda: namespaces_of(processes_of(name)))
        up.send_signal(number)
        up.communicate(timeout=240)
        assert up.returncode in (-signal.SIGKILL, 130)
        assert_nothing_stays(name, seen)


@pytest.mark.usefixtures("runtime_dir")
def test_a_stale_folder_is_replaced_and_a_running_lab_is_not() -> None:
    folder = rundir.path_of("stale")
    folder.mkdir(parents=True)
    (folder / rundir.ABOUT).write_text(json.dumps({"name": "stale", "keeper": 1, "nodes": []}))
    (folder / "mine").touch()
    assert "stale" not in rundir.names()
    refused = towpath("up", "--name", "stale", check=False)
    assert refused.returncode != 0 and "holds what is no lab's: mine" in refused.stderr
    (folder / "mine").unlink()
    assert "stale" not in rundir.names()
    assert not folder.exists()
    folder.mkdir()
    started("stale")
    again = towpath("up", "--name", "stale", check=False)
    assert again.returncode == 7
    assert "is running" in again.stderr
    towpath("down", "--name", "stale")


@pytest.mark.usefixtures("runtime_dir")
def test_bad_names_and_files_are_refused_before_anything_starts(tmp_path: Path) -> None:
    assert "cannot name a lab" in towpath("up", "--name", "A/b", check=False).stderr
    broken = tmp_path / "t.yaml"
    broken.write_text("nodes: [")
    assert "TP9004" in towpath("up", "--topology", str(broken), check=False).stderr
    broken.write_text("nodes: [{name: x, colour: red}]")
    assert "colour" in towpath("up", "--topology", str(broken), check=False).stderr
    assert "not running" in towpath("ps", "--name", "nobody", check=False).stderr


def forbidden() -> str:
    """In a child that is no longer root and may make no user namespaces: what ``isolate`` says."""
    read, write = os.pipe()
    uid = os.geteuid()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"1000 {uid} 1")
            Path("/proc/sys/user/max_user_namespaces").write_text("0")
            launch.isolate()
            os.write(write, b"was allowed")
        except LabError as error:
            os.write(write, str(error).encode())
        except OSError as error:
            os.write(write, f"skip {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as answer:
        return answer.read()


def test_where_namespaces_are_forbidden_one_sentence_says_what_to_do() -> None:
    said = forbidden()
    if said.startswith("skip"):
        pytest.skip(said)
    assert "forbids user namespaces" in said
    assert "max_user_namespaces" in said
    assert "TP9001" in said
    assert "\n" not in said


@pytest.mark.usefixtures("runtime_dir")
def test_an_ordinary_user_gets_the_same_lab() -> None:
    """Uid 1000 with no capability at all, in a user namespace that grants it nothing."""
    become = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    towpath_lab = [*become, *TOWPATH, "lab"]
    probe = subprocess.run([*become, "id", "-u"], capture_output=True, text=True, check=False)
    if probe.stdout.strip() != "1000":
        pytest.skip(f"unshare --map-user does not work here: {probe.stderr.strip()}")
    done = subprocess.run(
        [*towpath_lab, "up", "--name", "humble", "--nodes", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = namespaces_of(processes_of("humble"))
    assert towpath("exec", "--name", "humble", "n1", "--", "id", "-u").stdout.strip() == "0"
    subprocess.run([*towpath_lab, "down", "--name", "humble"], check=True)
    assert_nothing_stays("humble", seen)
