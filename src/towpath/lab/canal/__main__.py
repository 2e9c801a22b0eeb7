"""Prints the stand-ins of ``rke2-canal`` and ``rke2-multus`` of an RKE2 release, for ``kubectl apply -f -``.

python -m towpath.lab.canal v1.32.1+rke2r1
"""

import json
import sys

from towpath.catalogue import load
from towpath.catalogue.model import CatalogueError
from towpath.lab.canal import multus, objects


def main() -> int:
    """0, or 2 with a sentence for a release that is not known."""
    try:
        known, (release,) = load.builtin(), sys.argv[1:]
        made = [*objects(known, release), multus.daemonset(known.release(release))]
    except (CatalogueError, ValueError) as e:
        sys.stderr.write(f"python -m towpath.lab.canal RELEASE: {e}\n")
        return 2
    sys.stdout.write(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
