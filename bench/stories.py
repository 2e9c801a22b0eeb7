"""Failure stories, staged one after the other in a lab whose network is Canal's.

    make bench-stories       the last line on stdout is JSON: seconds until each was caught
    make bench-stories ONLY='watch rke2#4145'     by stage, by issue

docs/failure-stories.md tells what they are. ``preflight``: the cluster is not as it should be, and the
upgrade is refused before it begins. ``roll``: the new version's pod misbehaves on the first node that gets
it; ``towpath upgrade apply`` has to find it by what the page names, give the node its old version back, and
touch no other. ``watch``: something breaks afterwards. ``caught`` of how many. A rollout by itself would
stop at none of them: the pods are Ready, or become so again.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import stories_preflight, stories_roll, stories_watch
from bench.stories_stage import LAB, SKIP, Stage
from bench.upgrade import TOWPATH, say

__all__ = ["SKIP", "STORIES"]

Story = stories_preflight.Story | stories_roll.Story | stories_watch.Story
STORIES: tuple[Story, ...] = (*stories_preflight.STORIES, *stories_roll.STORIES, *stories_watch.STORIES)


def _staged(stage: Stage, story: Story) -> dict[str, Any]:
    match story:
        case stories_preflight.Story():
            return stories_preflight.staged(stage, story)
        case stories_roll.Story():
            return stories_roll.staged(stage, story)
        case stories_watch.Story():
            return stories_watch.staged(stage, story)


def _told(stage: Stage, story: Story) -> dict[str, Any]:
    """What comes of it, at once; a story that cannot be staged is not caught, and hinders no other."""
    try:
        found = _staged(stage, story)
    except RuntimeError as stuck:
        say(f"not staged: {stuck}")
        stage.towpath("upgrade", "abort", ok=(0, 4, 7))  # 7: there is none that was not brought to its end
        stage.whole()
        found = {"after_s": None, "caught": False}
    say(f"{story.issue}: {'caught' if found['caught'] else 'NOT caught'}, {found['after_s']} s")
    return found


def main(words: list[str]) -> None:
    """Print the figures; of those alone whose stage or issue is among ``words``, if there are any."""
    chosen = [story for story in STORIES if not words or {story.stage, story.issue} & set(words)]
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as runtime:
        folder = Path(runtime)
        folder.chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        begun = time.time()
        up = [*TOWPATH, "lab", "up", "--name", LAB, "--nodes", "2", "--cni", "canal"]
        subprocess.run(up, check=True, stdout=sys.stderr)
        try:
            stage = Stage(folder)
            found = {story.issue: _told(stage, story) for story in chosen}
        finally:
            subprocess.run([*TOWPATH, "lab", "down", "--name", LAB], check=True, stdout=sys.stderr)
    say(f"{time.time() - begun:.0f} s")
    line = {"bench": "stories", "caught": sum(one["caught"] for one in found.values()), "of": len(found)}
    print(json.dumps({**line, **{issue: one["after_s"] for issue, one in found.items()}}))


if __name__ == "__main__":
    main(sys.argv[1:])
