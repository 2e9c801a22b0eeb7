"""Another version of Towpath, as an installation has it: a wheel built from an earlier commit, in a venv, and
the agent's image with it.

    python -m bench.restart_versions      builds both, which `make e2e` needs: its world cannot write here
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from towpath.lab.real.images import Image, agent_image

ROOT = Path(__file__).parents[1]
BACK = 20  # commits
# The first whose nftables table persists. The kernel cannot take that flag off a table (nf_tables_updtable),
# and libnftables, which earlier agents used for it, cannot name it: they refuse such a table, and it stays.
FIRST = "ba0933404e"
BUILD = ROOT / "build" / "bench-restart"
OLDER = "docker.io/towpath/towpath-agent:older"


def older_python(say: Callable[[str], None]) -> Path:
    """The interpreter of a venv with the wheel of ``HEAD~BACK``, or of ``FIRST``; built once a commit."""
    commit = _git("rev-parse", f"HEAD~{BACK}")
    if not _is_ancestor(FIRST, commit):
        commit = _git("rev-parse", FIRST)
    venv = BUILD / commit[:12]
    python = venv / "bin" / "python3"
    if not (venv / "done").exists():
        say(f"building the wheel of {_git('log', '-1', '--format=%h %s', commit)}")
        shutil.rmtree(BUILD, ignore_errors=True)
        BUILD.mkdir(parents=True)
        _build(commit, venv)
        (venv / "done").touch()
    where = subprocess.run(
        [python, "-c", "import towpath; print(towpath.__file__)"], capture_output=True, text=True, check=True
    ).stdout
    assert str(venv) in where, f"the older version is not what runs: {where}"
    return python


def older_image(say: Callable[[str], None]) -> Image:
    """The agent's image with that version in it. Raises LabError."""
    python = older_python(say)
    (site,) = python.parents[1].glob("lib/python3*/site-packages")
    return agent_image(OLDER, say, site)


def _is_ancestor(first: str, commit: str) -> bool:
    return not subprocess.run(["git", "merge-base", "--is-ancestor", first, commit], cwd=ROOT).returncode


def _build(commit: str, venv: Path) -> None:
    uv = shutil.which("uv") or str(ROOT / ".venv-uv" / "bin" / "uv")
    with tempfile.TemporaryDirectory(prefix="towpath-older-") as folder:
        tree = Path(folder, "tree")
        _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        try:
            _run(uv, "build", "--wheel", "--quiet", "--out-dir", folder, str(tree))
            _run(uv, "venv", "--quiet", "--python", sys.executable, str(venv))
            wheel = next(Path(folder).glob("*.whl"))
            # Resolved as the lock of that commit says, without the project itself, which the wheel is.
            export = [
                uv,
                "export",
                "--quiet",
                "--frozen",
                "--no-dev",
                "--no-emit-project",
                "--no-hashes",
                "--project",
                str(tree),
            ]
            wanted = subprocess.run(
                export, check=True, capture_output=True, text=True, env=_environment()
            ).stdout
            requirements = Path(folder, "requirements.txt")
            requirements.write_text(wanted)
            into = ["--quiet", "--compile-bytecode", "--python", str(venv / "bin" / "python3")]
            install = [uv, "pip", "install", *into]
            _run(*install, "-r", str(requirements))
            _run(*install, "--no-deps", str(wheel))
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env=_environment(), stdout=sys.stderr)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"git {arguments[0]}: {done.stderr.strip()} (an earlier commit is needed: no shallow clone)"
        )
    return done.stdout.strip()


if __name__ == "__main__":
    older_image(print)
