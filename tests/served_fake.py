"""Commands against an API server that speaks plain HTTP and knows what it was given."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from towpath.cli.exit import CliError
from towpath.cli.main import cli
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NAMESPACES


@contextmanager
def served(kind: type[FakeApiServer], folder: Path) -> Iterator[tuple[FakeApiServer, str]]:
    """A server in a thread of its own, and the file that leads to it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(kind.start(), loop).result()
    file = folder / "kubeconfig"
    file.write_text(
        f"clusters: [{{name: c, cluster: {{server: '{server.config().server}'}}}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
    )
    server.put(NAMESPACES, {"metadata": {"name": "kube-system", "uid": "here"}})
    try:
        yield server, str(file)
    finally:
        asyncio.run_coroutine_threadsafe(server.down(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def said(*arguments: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = CliRunner().invoke(cli, list(arguments))
    if isinstance(done.exception, CliError):
        return done.exception.exit_code, f"{done.output}{done.exception}"
    return done.exit_code, done.output
