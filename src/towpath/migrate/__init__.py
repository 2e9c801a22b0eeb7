"""Takes a node over from Canal in place, and hands it back: pods keep addresses and connections.

``plan`` makes both of ``steps`` (values), which ``run`` carries out one by one (``taking``, ``giving``) and
the ``journal`` has on the disk before. What Canal's state means is decided in pure modules: ``iptables`` and
``ownership`` (rules), ``hostports``, ``pods`` (leases, links and limits as attachments), ``checks`` (what
cannot be taken over).
"""
