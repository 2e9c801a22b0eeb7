"""A table that lets packets through by a map is removed under traffic, again and again: nothing is lost."""

import os
import socket
import subprocess
import threading
from contextlib import closing

import pytest

from towpath.kernel.netns import new_netns, run_in
from towpath.kernel.nft_removal import remove
from towpath.kernel.nft_socket import NftSocket

pytestmark = pytest.mark.kernel

ROUNDS = 150
TABLE = """
table inet t {
    map allowed { type ipv4_addr : verdict; elements = { 127.0.0.1 : accept }; }
    chain judge {
        ip saddr vmap @allowed
        drop
    }
    chain input {
        type filter hook input priority 0; policy accept;
        udp dport 9 jump judge
    }
}
"""
ARRIVED = """
table inet t_arrived {
    chain input {
        type filter hook input priority 10; policy accept;
        udp dport 9 counter
    }
}
"""


def load(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def arrived() -> int:
    listed = subprocess.run(["nft", "list", "table", "inet", "t_arrived"], capture_output=True, text=True)
    return int(listed.stdout.split("packets ")[1].split()[0])


def test_no_packet_is_lost_to_a_removal() -> None:
    netns = new_netns()
    try:
        run_in(netns, removed_under_traffic)
    finally:
        os.close(netns)


def removed_under_traffic() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    load(ARRIVED)
    sent, over = [0], threading.Event()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", 9))

    def flood() -> None:
        while not over.is_set():
            try:
                sender.send(b"x")
            except ConnectionRefusedError:
                continue  # what the last one was answered with: nobody listens
            sent[0] += 1

    flooding = threading.Thread(target=flood)
    flooding.start()
    with closing(sender), closing(NftSocket()) as commands:
        try:
            for _ in range(ROUNDS):
                load(TABLE)
                remove(commands, ("inet", "t"))
        finally:
            over.set()
            flooding.join()
    assert sent[0] > 1000
    assert arrived() == sent[0]
