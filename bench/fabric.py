"""Pod-to-pod TCP across two nodes: Towpath against a flannel.1 and routes made by hand with ``ip``.

    make bench-fabric        the last line on stdout is JSON

Both sides stand at once, in namespaces of this process; iperf3 measures them alternately, seven times each,
and the median counts. ``vxlan`` goes through the overlay, ``direct`` over a plain route (DirectRouting).
Everything ends with the process, since nothing else holds its namespaces.
"""

import json
import os
import statistics
import subprocess
import sys
import time

from bench import flannel_by_hand, towpath_fabric

RUNS, SECONDS = 7, 3
INSIDE = "TOWPATH_BENCH_INSIDE"


def enter_namespaces() -> None:
    """Run again, in user, network, mount and process namespaces of our own (root inside)."""
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    command = [*unshare, "--mount-proc", sys.executable, "-m", "bench.fabric"]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})


def throughput(side_a: flannel_by_hand.Side, side_b: flannel_by_hand.Side) -> float:
    """Gbit/s from the pod on one node to the pod on the other, as the receiver counts it."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", side_b.pod, "iperf3", "-s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = ["ip", "netns", "exec", side_a.pod, "iperf3", "-c", side_b.pod_address, "-t", str(SECONDS), "-J"]
    for _ in range(50):
        # iperf3 reports in its JSON, not by its exit code, that the server is not listening yet.
        report = json.loads(subprocess.run(client, capture_output=True, text=True, check=False).stdout)
        if "error" not in report:
            break
        time.sleep(0.1)
    else:
        raise SystemExit(f"iperf3 cannot reach {side_b.pod}: {report['error']}")
    server.terminate()
    server.wait()
    bits: float = report["end"]["sum_received"]["bits_per_second"]
    return bits / 1e9


def compare(name: str, *, direct: bool) -> dict[str, float]:
    """Medians of both, and their ratio."""
    flannel_by_hand.build(direct=direct)
    towpath_fabric.build(direct=direct)
    sides = {
        "towpath": (towpath_fabric.A, towpath_fabric.B),
        "by_hand": (flannel_by_hand.A, flannel_by_hand.B),
    }
    seen: dict[str, list[float]] = {key: [] for key in sides}
    for run in range(RUNS):
        for key, (a, b) in sides.items():
            seen[key].append(throughput(a, b))
        print(
            f"{name} {run + 1}/{RUNS}: " + ", ".join(f"{k} {v[-1]:.1f} Gbit/s" for k, v in seen.items()),
            file=sys.stderr,
        )
    medians = {key: statistics.median(values) for key, values in seen.items()}
    for netns in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    ):
        if netns:
            subprocess.run(["ip", "netns", "delete", netns.split()[0]], check=True)
    return {**medians, "ratio": medians["towpath"] / medians["by_hand"]}


def main() -> None:
    """Both cases, then the JSON line."""
    if INSIDE not in os.environ:
        enter_namespaces()
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    vxlan, direct = compare("vxlan", direct=False), compare("direct", direct=True)
    result = {
        "bench": "fabric",
        "vxlan_ratio": round(vxlan["ratio"], 3),
        "direct_ratio": round(direct["ratio"], 3),
    }
    for side in ("towpath", "by_hand"):
        result[side] = {"vxlan_gbit_s": round(vxlan[side], 2), "direct_gbit_s": round(direct[side], 2)}
    print(json.dumps({**result, "n": RUNS}, separators=(",", ":")))


if __name__ == "__main__":
    main()
