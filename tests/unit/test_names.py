from towpath.desired.names import HOST_LL, HOST_MAC, container_ifname, host_ifname, ifb_name


def test_eth0_is_named_as_calico_names_it() -> None:
    # sha1("default.nginx") as `printf default.nginx | sha1sum` prints it.
    assert host_ifname("default", "nginx") == "calic440f455693"


def test_names_fit_the_kernel_and_differ() -> None:
    names = {
        host_ifname("a", "b.c"),
        host_ifname("a", "b.c", "net1"),
        host_ifname("a", "b.c", "net2"),
        host_ifname("a.b", "c", "net1"),
        container_ifname("a.b.c", "eth0"),
        container_ifname("a.b.c", "net1"),
    }
    assert len(names) == 5  # "a"+"b.c" and "a.b"+"c" are one text, but a namespace has no dot
    assert all(len(name) == 15 and name.startswith("cali") for name in names)
    assert len(ifb_name(host_ifname("a", "b"))) == 14


def test_host_link_local_is_what_the_kernel_derives_from_the_mac() -> None:
    octets = [int(part, 16) for part in HOST_MAC.split(":")]
    octets[0] ^= 2
    eui = [*octets[:3], 0xFF, 0xFE, *octets[3:]]
    assert HOST_LL.packed == bytes([0xFE, 0x80, 0, 0, 0, 0, 0, 0, *eui])
