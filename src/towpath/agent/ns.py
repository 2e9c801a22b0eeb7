"""``towpath-ns``: lends the agent root on the host when no runtime call is at hand.

It does one thing: it keeps a few shims running (``CNI_COMMAND=ATTEND``), which connect to the agent as those
of a runtime do, and runs each anew when it ends. What a shim does for the agent, and what it refuses, is the
same as in a runtime's call (shim/towpath-cni.c): it executes plugins of the node's folder of plugins with CNI
variables, and hands over descriptors of a pod's network namespace. Nothing listens here, and nothing is read
from the network.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading

_AGAIN, _LONGEST = 1.0, 30.0  # seconds, after a shim that failed: there is no agent, or no shim yet
_CONFIG = json.dumps({"cniVersion": "1.1.0", "name": "towpath-ns", "type": "towpath-cni"}).encode()
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Hand(threading.Thread):
    """One shim at a time, until ``stop``."""

    def __init__(self, shim: str, plugins: str) -> None:
        super().__init__(daemon=True)
        self._shim, self._plugins = shim, plugins
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run shims. What one says to people goes where our own words go."""
        environment = {"CNI_COMMAND": "ATTEND", "CNI_PATH": self._plugins, "PATH": _PATH}
        pause = _AGAIN
        while not self._stopping.is_set():
            try:
                with subprocess.Popen(
                    [self._shim], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                ) as process:
                    self._process = process
                    if self._stopping.is_set():
                        process.kill()
                    said, _ = process.communicate(_CONFIG)
                failed = process.returncode != 0
            except OSError as error:
                said, failed = str(error).encode(), True
            if failed and not self._stopping.is_set():
                sys.stderr.write(f"towpath-ns: {said.decode(errors='replace').strip()}\n")
                self._stopping.wait(pause)
            pause = min(pause * 2, _LONGEST) if failed else _AGAIN

    def stop(self) -> None:
        """End the shim; a plugin that it runs comes to its own end, and the agent undoes it."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()


def main(arguments: list[str] | None = None) -> None:
    """Until SIGTERM."""
    parser = argparse.ArgumentParser(prog="towpath-ns", description="lends Towpath's agent root on the host")
    parser.add_argument("--root", default="/", help="the host's root folder")
    parser.add_argument("--plugins", default="/opt/cni/bin", help="folders of plugins there, with : between")
    parser.add_argument("--hands", type=int, default=2, help="how many things can be done at once")
    given = parser.parse_args(arguments)
    if given.root != "/":
        os.chroot(given.root)
        os.chdir("/")
    shim = f"{given.plugins.partition(':')[0]}/towpath-cni"
    hands = [Hand(shim, given.plugins) for _ in range(given.hands)]
    # Written to when a signal comes. A handler in Python is run when what blocks is over, if the signal comes
    # just before that begins.
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    for hand in hands:
        hand.start()
    os.read(told, 1)
    for hand in hands:
        hand.stop()
    for hand in hands:
        hand.join()  # a thread that is ended in the middle of a word keeps the lock that ending waits for


if __name__ == "__main__":
    main()
