"""Which device goes to which network; what the kubelet's answer says; device-info files."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.api.pod_resources import devices_of
from towpath.api.protobuf import Malformed
from towpath.multinet.annotation import Selection
from towpath.multinet.choose import Wanted
from towpath.multinet.definition import Definition
from towpath.multinet.devices import device_info, info_file, with_devices
from towpath.multinet.refusal import NetworkRefused

# ListPodResourcesResponse as protoc encodes it: pod "p" of namespace "n", two containers, the second without
# devices; the first has cpu_ids, a device with a topology, and a field of a later release.
REAL = bytes.fromhex(
    "0a2c"  # pod_resources
    "0a0170" "12016e"  # name, namespace
    "1a1f" "0a0163"  # container c
    "1213" "0a04722f7666" "12026130" "12026131" "1a030a0108"  # devices: r/vf, a0 a1, topology
    "1a020001"  # cpu_ids, packed
    "52010a"  # field 10
    "1a03" "0a0164"  # container d
)  # fmt: skip


def network(name: str, resource: str = "", device: str = "") -> Wanted:
    definition = Definition(
        reference=f"default/{name}",
        network=name,
        version="1.0.0",
        plugins=({"type": "sriov"},),
        resource=resource,
    )
    return Wanted(selection=Selection(name=name, device_id=device), definition=definition, ifname="net1")


def test_the_kubelets_answer() -> None:
    assert devices_of(REAL, "n", "p") == {"r/vf": ("a0", "a1")}
    assert devices_of(REAL, "n", "q") is None
    assert devices_of(b"", "n", "p") is None


@given(st.binary() | st.binary().map(lambda b: REAL + b) | st.integers(0, len(REAL)).map(lambda n: REAL[:n]))
def test_any_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        devices_of(data, "n", "p")


@given(st.lists(st.tuples(st.sampled_from(("", "a", "b")), st.sampled_from(("", "0", "1", "x"))), max_size=5))
def test_no_device_is_given_twice(asked: list[tuple[str, str]]) -> None:
    devices = {"a": ("0", "1"), "b": ("2",)}
    wanted = [network(f"n{n}", resource, device) for n, (resource, device) in enumerate(asked)]
    try:
        found = with_devices(wanted, devices, taken=["1"])
    except NetworkRefused as refused:
        assert refused.code == "TP6015"
        return
    assert [one.definition for one in found] == [one.definition for one in wanted]
    new = [one.selection.device_id for one, (_, named) in zip(found, asked, strict=True) if not named]
    given_out = [device for device in new if device]
    assert len(set(given_out)) == len(given_out)
    assert not set(given_out) & {"1", *(named for _, named in asked)}
    for one, (resource, named) in zip(found, asked, strict=True):
        assert one.selection.device_id == named or one.selection.device_id in devices[resource]


def test_too_few_are_said() -> None:
    with pytest.raises(NetworkRefused, match="0 devices of r/vf"):
        with_devices([network("n", "r/vf")], {})


def test_files_that_describe_devices() -> None:
    vf = network("n", "r/vf").definition
    assert info_file(vf, "0000:03:02.1", "cid", "net1") == "dp/r-vf-0000:03:02.1-device.json"
    assert info_file(vf, "/dev/x", "cid", "net1") == "dp/r-vf--dev-x-device.json"
    assert info_file(network("n").definition, "", "cid", "net1") == "cni/n-cid-net1-device.json"
    memif = b'{"type": "memif", "version": "1.1.0", "memif": {"role": "slave"}}'
    assert device_info(memif) == {"type": "memif", "version": "1.1.0", "memif": {"role": "slave"}}
    assert [device_info(odd) for odd in (b"", b"[]", b'{"type": 1}', b'{"type": "disk"}')] == [None] * 4
