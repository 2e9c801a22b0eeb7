"""Bytecode of an image's Python files, made by the very interpreter the image has, the same each time."""

from pathlib import Path

from towpath.image.apt import run
from towpath.image.lock import MULTIARCH
from towpath.image.tree import Tree, file, write_folder


def compiled(tree: Tree, interpreter: Tree, architecture: str, scratch: Path) -> Tree:
    """``__pycache__`` files for the modules of ``tree``. ``interpreter``: an image's files for this machine's
    ``architecture``. Hash seed, order and paths are fixed; the files are never checked against their source
    (PEP 552). Raises ImageError.
    """
    runtime, root = scratch / "interpreter", scratch / "root"
    runtime.mkdir()
    root.mkdir()
    write_folder(interpreter, runtime)
    write_folder({p: e for p, e in tree.items() if p.endswith(".py")}, root)
    libraries = runtime / "usr/lib" / MULTIARCH[architecture]
    (loader,) = libraries.glob("ld-linux*.so.*")
    run(
        [str(loader), "--library-path", str(libraries), str(runtime / "usr/bin/python3.11"), "-B", "-S",
         "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash", "-s", str(root),
         "-p", "/", str(root / "usr")],
        env={"PYTHONHASHSEED": "0", "PYTHONHOME": str(runtime / "usr"), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return {p.relative_to(root).as_posix(): file(p.read_bytes()) for p in sorted(root.rglob("*.pyc"))}
