"""The kernel: netlink, nftables, sysctl and conntrack; one observer, one applier, a fake that behaves."""
