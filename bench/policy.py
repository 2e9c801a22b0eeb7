"""What network policy costs: per connection, for a whole cluster at start, for a change, for the matrix.

    make bench-policy        the last line on stdout is JSON

Each part is a process of its own. Peers: chains of Calico's shape, programmed with nft and with iptables and
measured turn by turn with ours; network-config-analyzer on a tenth of the matrix; and what Calico publishes
of its own benchmark of the snapshot's shape (projectcalico/calico pull request 10272, on an i9-8950HK).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGETS = {
    "conn_ratio_10k": 0.95,
    "conn_vs_chains_5k": 20.0,
    "snapshot_250k_10k_s": 4.0,
    "snapshot_250k_10k_mb": 400,
    "pod_change_p99_ms": 25.0,
    "policy_change_p99_ms": 50.0,
    "matrix_1500_400_s": 1.0,
}
CALICO = {"snapshot_s": 3.39, "snapshot_heap_mb": 374.5}


def part(name: str) -> dict[str, Any]:
    """The JSON line of one part."""
    print(f"{name} …", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"bench.policy_{name}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    line = done.stdout.splitlines()[-1]
    print(line, file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(line)
    return found


def main() -> None:
    """Print the figures."""
    snapshot, changes = part("snapshot"), part("changes")
    matrix, connections = part("matrix"), part("connections")
    ratios = connections["ratios"]
    result = {
        "bench": "policy",
        "conn_ratio_10k": round(ratios["many"], 3),
        "conn_vs_chains_5k": round(ratios["chains"], 1),
        "conn_vs_iptables_chains_5k": round(ratios["iptables"], 1),
        "conn_ratio_alternating_1k": round(ratios["alternating"], 3),
        "snapshot_250k_10k_s": snapshot["seconds"],
        "snapshot_250k_10k_mb": snapshot["mb"],
        "pod_change_p99_ms": changes["pod_p99_ms"],
        "policy_change_p99_ms": changes["policy_p99_ms"],
        "matrix_1500_400_s": matrix["seconds"],
        "connections_per_second": connections["per_second"],
        "snapshot_cpu_s": snapshot["cpu_seconds"],
        "changes": changes,
        "matrix_150_40_s": matrix["tenth_s"],
        "peers": {"nca_matrix_150_40_s": matrix["nca_tenth_s"], "calico_published": CALICO},
        "targets": TARGETS,
    }
    print(json.dumps(result, separators=(",", ":")))


if __name__ == "__main__":
    main()
