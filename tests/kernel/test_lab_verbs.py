"""What the lab's fault verbs see of the kernel."""

import subprocess

import pytest

from towpath.lab.faults import tables

pytestmark = pytest.mark.kernel


def test_tables_of_every_family_are_listed_as_nft_lists_them() -> None:
    made = ("inet a", "ip b", "ip6 c", "bridge d", "arp e", "netdev f")
    try:
        for one in made:
            subprocess.run(["nft", "add", "table", *one.split()], check=True)
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        assert sorted(f"table {one}" for one in tables()) == sorted(listed.splitlines())
        assert set(made) <= set(tables())
    finally:
        for one in made:
            subprocess.run(["nft", "delete", "table", *one.split()], check=False)
