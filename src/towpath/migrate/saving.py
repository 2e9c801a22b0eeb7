"""Copies of what Canal had, for people who want to look, or to go back by hand."""

import shutil
from pathlib import Path

from towpath.migrate.conflist import CanalConf
from towpath.migrate.node import Node


def save(node: Node, conf: CanalConf, folder: Path) -> None:
    """Into ``folder``, readable for root only. Raises OSError, ToolFailed, KernelRefused."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / conf.file).write_text(conf.text)
    (folder / "nft.txt").write_text(node.firewall.chains())
    (folder / "ipsets.txt").write_text("".join(f"{name}\n" for name in node.firewall.sets()))
    for (backend, family), tables in node.tables().items():
        lines = []
        for table in tables.values():
            lines.append(f"*{table.name}")
            lines += [f":{chain} {policy} [0:0]" for chain, policy in table.chains.items()]
            lines += [rule.text for rule in table.rules]
            lines.append("COMMIT")
        name = f"{'ip6tables' if family == 6 else 'iptables'}-{backend}.txt"
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    leases = node.place.leases_of(conf)
    if leases.is_dir():
        shutil.copytree(leases, folder / "leases", dirs_exist_ok=True)
