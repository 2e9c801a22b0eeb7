"""What a conductor may do next, as values. Doing one twice does no harm."""

from typing import Any, NamedTuple

from towpath.upgrade.journal import Event
from towpath.upgrade.seen import Direction


class Note(NamedTuple):
    """Write this, and look again."""

    event: Event
    node: str = ""
    text: str = ""
    template: str = ""


class SetStrategy(NamedTuple):
    """Of the DaemonSet."""

    strategy: dict[str, Any]
    event: Event

    def describe(self) -> str:
        """One line."""
        return f"set the update strategy to {self.strategy.get('type')}"


class SetImages(NamedTuple):
    """Of the template. With OnDelete no pod changes by that."""

    images: dict[str, str]
    text: str

    def describe(self) -> str:
        """One line."""
        return f"set the images of the template ({self.text})"


class SetFrozen(NamedTuple):
    """The HelmChart: helm-controller leaves one alone that is frozen."""

    chart: str
    frozen: bool

    def describe(self) -> str:
        """One line."""
        return f"{'freeze' if self.frozen else 'unfreeze'} HelmChart {self.chart}"


class Cordon(NamedTuple):
    """Let no new pods come to the node, or let them come again."""

    node: str
    on: bool

    def describe(self) -> str:
        """One line."""
        return f"{'cordon' if self.on else 'uncordon'} {self.node}"


class Drain(NamedTuple):
    """Evict the pods of the node that may live elsewhere."""

    node: str

    def describe(self) -> str:
        """One line."""
        return f"drain {self.node}"


class DeletePod(NamedTuple):
    """The old pod of a node, and no other that may have come meanwhile."""

    node: str
    name: str
    uid: str

    def describe(self) -> str:
        """One line."""
        return f"replace the pod on {self.node}"


class Label(NamedTuple):
    """The Node's label that says whose it is; empty: none."""

    node: str
    value: str

    def describe(self) -> str:
        """One line."""
        return f"label {self.node} {self.value}" if self.value else f"take the label off {self.node}"


class StartMove(NamedTuple):
    """A pod on the node that moves it from one network to the other, where none is."""

    node: str
    direction: Direction

    def describe(self) -> str:
        """One line."""
        return f"{self.direction} of {self.node}"


class EndMove(NamedTuple):
    """Take that pod away. One that is killed has left nothing half done."""

    node: str
    name: str

    def describe(self) -> str:
        """One line."""
        return f"take {self.name} away"


class Gate(NamedTuple):
    """Ask whether the node is well; the answer is noted."""

    node: str
    soak: float

    def describe(self) -> str:
        """One line."""
        return f"gates of {self.node}"


class Wait(NamedTuple):
    """Nothing to do until something changes, or ``until`` (seconds since 1970; None: for somebody's word)."""

    why: str
    until: float | None


Deed = SetStrategy | SetImages | SetFrozen | Cordon | Drain | DeletePod | Label | StartMove | EndMove
Action = Note | Gate | Wait | Deed
