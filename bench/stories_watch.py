"""Stories that come days after an upgrade, and that ``towpath upgrade watch`` catches."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.stories_preflight import dressed
from bench.stories_stage import FLANNELD, FOLDER, NODES, SYSTEM, Stage
from bench.upgrade import TOWPATH, say

EVERY, WITHIN = 2.0, 60.0
_BLOCKS = "ipamblocks.crd.projectcalico.org"
# A kubeconfig whose token lies in a file of its own, as a service account's does, until it is worth nothing.
_TOKEN_APART = """
import os, yaml
told = yaml.safe_load(open(os.environ["KUBECONFIG"]))
user = told["users"][0]["user"]
open("/story/token", "w").write(user.pop("token"))
user["tokenFile"] = "/story/token"
open("/story/kubeconfig", "w").write(yaml.safe_dump(told))
"""
_LATER = f"python3 -c '{_TOKEN_APART}' || exit 1; exec {FLANNELD.replace('$KUBECONFIG', '/story/kubeconfig')}"


class Story(NamedTuple):
    """``says``: is among what it tells; ``ready`` makes the cluster as it was, ``harm`` is what happens."""

    issue: str
    says: str
    ready: Callable[[Stage], None]
    harm: Callable[[Stage], None]

    @property
    def stage(self) -> str:
        """As the page calls it."""
        return "watch"


def _blocks(stage: Stage) -> None:
    dressed(stage)
    stage.apply(
        *(
            {
                "apiVersion": "crd.projectcalico.org/v1",
                "kind": "KindIpamblocks",
                "metadata": {"name": f"10-42-{number}-0-26", "namespace": "default"},
                "spec": {"cidr": f"10.42.{number}.0/26"},
            }
            for number in range(30)
        )
    )


def _vanish(stage: Stage) -> None:
    stage.kubectl("delete", "crd", _BLOCKS, "--wait=false")


def _token_in_a_file(stage: Stage) -> None:
    stage.first(_LATER)
    stage.kubectl(
        "delete", "pod", *SYSTEM, "-l", "k8s-app=canal", f"--field-selector=spec.nodeName={NODES[0]}"
    )
    stage.until(stage.ready)


def _token_ends(stage: Stage) -> None:
    stage.on(NODES[0], f"printf no-longer-taken > {FOLDER}/token")


STORIES = (
    Story("rke2#10168", "TP7609", _blocks, _vanish),
    Story("calico#8777", "TP7603", _token_in_a_file, _token_ends),
)


def staged(stage: Stage, story: Story) -> dict[str, Any]:
    """Seconds from the harm to its finding; before it there is none."""
    say(f"{story.issue}: {story.says} of the watch…")
    story.ready(stage)
    words = ("upgrade", "watch", "--for", "10m", "--every", f"{EVERY:g}s", "--probe-seconds", "0")
    command = [*TOWPATH, *words, "--no-read-nodes", "--kubeconfig", stage.kubeconfig]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
    lines: list[tuple[float, str]] = []
    assert watch.stdout is not None

    def read() -> None:
        lines.extend((time.monotonic(), line) for line in watch.stdout or ())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        _wait(lambda: sum("pods of the network ready" in line for _, line in list(lines)) > 1)
        early = [line for _, line in list(lines) if " TP7" in line]
        begun = time.monotonic()
        story.harm(stage)
        _wait(lambda: any(story.says in line for _, line in list(lines)))
    finally:
        watch.send_signal(signal.SIGINT)
        watch.wait(WITHIN)
        reader.join()
    told = next((when for when, line in lines if story.says in line), None)
    stage.whole()
    caught = told is not None and not early
    if not caught:
        say(f"not caught by {story.says}: {''.join(line for _, line in lines)[-800:]}")
    return {"after_s": round(told - begun, 1) if told is not None else None, "caught": caught}


def _wait(holds: Callable[[], bool]) -> None:
    """For a minute at most."""
    deadline = time.monotonic() + WITHIN
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
