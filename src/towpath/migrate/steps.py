"""The steps of a takeover and of a handback, as values. Each may be carried out any number of times.

What a step finds to do it looks for when it is carried out: between planning and doing, Canal goes on
working.
"""

from typing import Literal

import msgspec

Backend = Literal["nft", "legacy"]
Family = Literal[4, 6]


class SaveState(msgspec.Struct, frozen=True, tag=True):
    """Keep a copy of what Canal has, for people: rules, sets, leases, configuration."""

    folder: str

    def describe(self) -> str:
        """One line for people."""
        return f"copy Canal's rules, leases and configuration to {self.folder}"


class HoldAgent(msgspec.Struct, frozen=True, tag=True):
    """Have the agent touch nothing ("all"), or attach no new pods ("add").

    ``at_least``: one that touches nothing is not let go. It may not know all pods.
    """

    scope: Literal["all", "add"]
    reason: str
    at_least: bool = False

    def describe(self) -> str:
        """One line for people."""
        what = "touches nothing" if self.scope == "all" else "attaches no new pods for now"
        return f"see that Towpath's agent {what}"


class ReleaseAgent(msgspec.Struct, frozen=True, tag=True):
    """Let the agent do all its work."""

    def describe(self) -> str:
        """One line for people."""
        return "let Towpath's agent attach pods"


class SwitchConf(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Put ``on`` in force (its text, if it is not there) and ``off`` out of the runtime's sight, renamed."""

    on: str
    off: str
    text: str = ""

    def describe(self) -> str:
        """One line for people."""
        return f"CNI configuration: {self.on} instead of {self.off}, for pods to come"


class AwaitCalls(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Wait until no call of these CNI plugins is under way, for ``quiet`` seconds on end."""

    plugins: tuple[str, ...]
    quiet: float = 1.0
    patience: float = 600.0

    def describe(self) -> str:
        """One line for people."""
        return f"wait for calls of {', '.join(self.plugins)} that are under way"


class ImportLeases(msgspec.Struct, frozen=True, tag=True):
    """Make Canal's pods Towpath's, under host-local's lock. ``final``: after the last of Canal's calls."""

    final: bool

    def describe(self) -> str:
        """One line for people."""
        again = (
            " once more: nothing of Canal's is under way now" if self.final else " under host-local's lock"
        )
        return f"import leases, host ports and limits of Canal's pods{again}"


class ImportNetworks(msgspec.Struct, frozen=True, tag=True):
    """Journal what Multus began. ``final``: after the last of its calls."""

    final: bool

    def describe(self) -> str:
        """One line for people."""
        again = " once more: nothing of Multus's is under way now" if self.final else ""
        return f"import what Multus attached pods to{again}"


class ExportNetworks(msgspec.Struct, frozen=True, tag=True):
    """Write what pods are attached to where Multus looks at their end."""

    final: bool

    def describe(self) -> str:
        """One line for people."""
        again = " once more: nothing of Towpath's is under way now" if self.final else ""
        return f"export what pods are attached to, for Multus{again}"


class RestoreConf(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Put ``on``, Multus's configuration, in force; nothing goes for it yet."""

    on: str
    text: str

    def describe(self) -> str:
        """One line for people."""
        return f"CNI configuration: {self.on} before all others"


class RetireNetworks(msgspec.Struct, frozen=True, tag=True):
    """Put aside Multus's configuration, if its pod has written it once more, and its memory of pods."""

    def describe(self) -> str:
        """One line for people."""
        return "move Multus's configuration and its memory of pods aside"


class ExportLeases(msgspec.Struct, frozen=True, tag=True):
    """Write Towpath's leases where host-local keeps its own, under its lock."""

    final: bool

    def describe(self) -> str:
        """One line for people."""
        again = " once more: nothing of Towpath's is under way now" if self.final else " under its lock"
        return f"export leases to host-local's folder{again}"


class AwaitRules(msgspec.Struct, frozen=True, tag=True):
    """Wait until the kernel has, of each pod, Towpath's binding, policy, host ports and limits."""

    patience: float = 600.0

    def describe(self) -> str:
        """One line for people."""
        return "wait until Towpath's rules are in force for every pod"


class Announce(msgspec.Struct, frozen=True, tag=True):
    """Set the label of the Node by which the DaemonSets of both are told where to run; empty removes it."""

    value: str

    def describe(self) -> str:
        """One line for people."""
        return f"label the Node towpath.dev/network={self.value}" if self.value else "remove the Node's label"


class AwaitDaemons(msgspec.Struct, frozen=True, tag=True):
    """Wait until Felix and flanneld have left the node: they would put back what is removed."""

    patience: float = 600.0

    def describe(self) -> str:
        """One line for people."""
        return "wait until Canal's pod (calico-node, flanneld) has left the node"


class AwaitCanal(msgspec.Struct, frozen=True, tag=True):
    """Wait until Felix's chains for every pod, and flanneld's masquerading, are in the kernel."""

    patience: float = 600.0

    def describe(self) -> str:
        """One line for people."""
        return "wait until Canal's rules are in force for every pod"


class RemoveRules(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Remove Felix's, flanneld's and portmap's iptables rules of one backend and family; each table at
    once.
    """

    backend: Backend
    family: Family

    def describe(self) -> str:
        """One line for people."""
        return f"remove Canal's chains from {'ip6tables' if self.family == 6 else 'iptables'}-{self.backend}"


class RemoveNftTables(msgspec.Struct, frozen=True, tag=True):
    """Remove Felix's and flanneld's own nftables tables, and portmap's rules, in one transaction."""

    def describe(self) -> str:
        """One line for people."""
        return "remove Canal's nftables tables (calico, flannel-ipv4/6; of cni_hostport our pods' rules)"


class RemoveSets(msgspec.Struct, frozen=True, tag=True):
    """Remove Felix's IP sets."""

    def describe(self) -> str:
        """One line for people."""
        return "remove Felix's IP sets"


class RemoveIfbs(msgspec.Struct, frozen=True, tag=True):
    """Remove the bandwidth plugin's devices that nothing is redirected to any more."""

    def describe(self) -> str:
        """One line for people."""
        return "remove the bandwidth plugin's devices of Canal's pods"


class VerifyGone(msgspec.Struct, frozen=True, tag=True):
    """See that nothing of Canal's has come back."""

    def describe(self) -> str:
        """One line for people."""
        return "verify that nothing of Canal's is left"


class RetireLeases(msgspec.Struct, frozen=True, tag=True):
    """Move host-local's folder of the network aside."""

    def describe(self) -> str:
        """One line for people."""
        return "move host-local's folder aside"


class RestorePorts(msgspec.Struct, frozen=True, tag=True):
    """Have the node's own portmap publish every pod's ports, as at the pod's start."""

    def describe(self) -> str:
        """One line for people."""
        return "have portmap publish the pods' host ports"


class AwaitAgent(msgspec.Struct, frozen=True, tag=True):
    """Wait until the agent has let go of its lease store."""

    patience: float = 600.0

    def describe(self) -> str:
        """One line for people."""
        return "wait until Towpath's agent has let go"


class RestoreLimits(msgspec.Struct, frozen=True, tag=True):
    """Give every pod's limits the devices and queueing disciplines of the bandwidth plugin."""

    def describe(self) -> str:
        """One line for people."""
        return "make the pods' bandwidth limits the bandwidth plugin's"


class RemoveTable(msgspec.Struct, frozen=True, tag=True):
    """Remove Towpath's nftables table, the last thing of it in the kernel."""

    def describe(self) -> str:
        """One line for people."""
        return "remove the table inet towpath"


class RetireStore(msgspec.Struct, frozen=True, tag=True):
    """Move the lease store aside: from now on host-local's folder is right."""

    def describe(self) -> str:
        """One line for people."""
        return "move Towpath's lease store aside"


Step = (
    SaveState
    | HoldAgent
    | ReleaseAgent
    | SwitchConf
    | AwaitCalls
    | ImportLeases
    | ExportLeases
    | ImportNetworks
    | ExportNetworks
    | RestoreConf
    | RetireNetworks
    | AwaitRules
    | Announce
    | AwaitDaemons
    | AwaitCanal
    | RemoveRules
    | RemoveNftTables
    | RemoveSets
    | RemoveIfbs
    | VerifyGone
    | RetireLeases
    | RestorePorts
    | AwaitAgent
    | RestoreLimits
    | RemoveTable
    | RetireStore
)
