"""What an upgrade has done so far, written before it does it. The only memory a conductor has.

A record is written before the action it names. So after a crash an action may have been done or not, and
every action is such that doing it again does no harm: the next conductor looks at the cluster and goes on.
"""

from collections.abc import Iterable
from typing import Literal, Self

import msgspec

from towpath.upgrade.evidence import GateSeen

Event = Literal[
    "begin",  # the plan was accepted
    "freeze",  # the DaemonSet is about to be set to OnDelete
    "template",  # its images are about to be set (text: forward or back)
    "touch",  # the node's pod is about to be deleted
    "move",  # a pod is about to move the node to another network (text: takeover or handback)
    "moved",  # it has (text: the same)
    "passed",  # the node has passed its gates
    "gone",  # the node is not there any more
    "failed",  # the node has not (text: why); it is to be rolled back
    "restored",  # the node has the old pod again
    "pause",  # somebody, or a gate that could not tell, stopped it (text: why)
    "resume",
    "chart",  # its HelmChart is frozen, unfrozen, or stays frozen (text: which, and why)
    "cordon",  # the node is about to be cordoned
    "drained",  # its pods are gone to other nodes
    "uncordon",  # new pods come to it again
    "abort",  # somebody wants it to end, with every node as it is
    "aborted",  # it has (text: which nodes are new)
    "rollback",  # somebody wants everything as it was
    "release",  # the DaemonSet's own strategy is about to be put back
    "done",  # all nodes have the new images
    "rolled-back",  # all nodes have the old images
]
Mode = Literal["forward", "mending", "back", "paused", "aborting", "aborted", "done", "rolled-back"]
ENDED: tuple[Mode, ...] = ("done", "rolled-back", "aborted")  # a new plan may be begun


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """``at`` seconds since 1970. ``gates``: what was seen, of a node that was judged.

    ``template``: of the DaemonSet, as ``Seen`` has it, when it was begun or somebody had edited it.
    """

    event: Event
    at: float
    node: str = ""
    text: str = ""
    gates: tuple[GateSeen, ...] = ()
    template: str = ""


class Journal(msgspec.Struct, frozen=True):
    """All records, the first first."""

    records: tuple[Record, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """One JSON record a line. Raises msgspec.DecodeError."""
        return cls(tuple(msgspec.json.decode(line, type=Record) for line in text.splitlines() if line))

    def text(self) -> str:
        """As it is stored."""
        return "".join(f"{msgspec.json.encode(record).decode()}\n" for record in self.records)

    def __add__(self, record: Record) -> "Journal":
        return Journal((*self.records, record))

    @property
    def mode(self) -> Mode:
        """What is to be done now. A node that failed is mended first, then the upgrade stands still.

        What is done can still be rolled back.
        """
        mode: Mode = "forward"
        for record in self.records:
            match record.event:
                case "rolled-back":
                    return "rolled-back"
                case "done":
                    mode = "done"
                case "abort":
                    mode = "aborting" if mode not in ENDED else mode
                case "aborted":
                    mode = "aborted"
                case "rollback":
                    mode = "back"
                case "failed":
                    mode = "mending" if mode == "forward" else mode
                case "restored":
                    mode = "paused" if mode == "mending" else mode
                case "pause":
                    mode = "paused" if mode in ("forward", "mending", "back", "aborting") else mode
                case "resume":
                    mode = "forward" if mode == "paused" else mode
        return mode

    def last(self, events: Iterable[Event], node: str = "") -> Record | None:
        """The latest of these; of one node, if it is named."""
        wanted = set(events)
        return next(
            (r for r in reversed(self.records) if r.event in wanted and (not node or r.node == node)), None
        )

    def passed(self, node: str) -> Record | None:
        """That the node has passed, if nothing was done to it since."""
        last = self.last(("touch", "passed", "gone", "failed", "restored"), node)
        return last if last is not None and last.event in ("passed", "gone") else None
