"""What the policy engine has the kernel hold: values that the ruleset merges into the table."""

import msgspec

from towpath.model.nft import Key, NftChain, NftSet


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """Compiled policy of one node. ``sets`` and ``chains`` by name, elements included.

    ``from_pod`` and ``to_pod`` are the verdicts for what a pod sends and receives, by the host's end of its
    link: ``("goto pe-…",)``, or ``("return",)`` where no policy speaks. A pod in neither is not known yet.
    """

    sets: dict[str, NftSet] = {}
    chains: dict[str, NftChain] = {}
    from_pod: dict[str, Key] = {}
    to_pod: dict[str, Key] = {}
