"""IPVS is noticed by what it leaves in /proc and by kube-proxy's device."""

from pathlib import Path

from towpath.agent.ipvs import ipvs_findings, virtual_services

# As the kernel prints it (``ip_vs_info_seq_show``).
EMPTY = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
"""
SERVICES = """TCP  0A600001:01BB rr
  -> AC1E000B:192B      Masq    1      0          0
UDP  0A60000A:0035 rr
TCP  [fd00:0010:0096:0000:0000:0000:0000:0001]:01BB rr
"""


def test_services_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "ip_vs"
    assert virtual_services(file) == 0
    file.write_text(EMPTY)
    assert virtual_services(file) == 0
    file.write_text(EMPTY + SERVICES)
    assert virtual_services(file) == 3
    assert virtual_services(tmp_path) == 0


def test_a_node_without_ipvs_is_fine() -> None:
    assert ipvs_findings("n1", {"lo", "eth0", "flannel.1"}, 0) == ()


def test_kube_proxys_device_or_any_service_is_an_error() -> None:
    (device,) = ipvs_findings("n1", {"lo", "kube-ipvs0"}, 0)
    assert (device.code, device.object, device.severity) == ("TP5047", "Node/n1", "error")
    assert "kube-proxy runs in ipvs mode" in device.message
    (others,) = ipvs_findings("n1", {"lo"}, 2)
    assert others.message.startswith("IPVS has 2 virtual services")
