"""From decoded objects to the ruleset: 250 000 endpoints, 10 000 policies of 5 rules, 200 local pods.

Run in a process of its own. Prints JSON: seconds from the decoded objects on, and MB that the resident set
grew to at most since before they were decoded.
"""

import json
import resource
from pathlib import Path
from time import perf_counter, process_time

from bench.policy_worlds import endpoints, policies
from towpath.desired.protection import Peering
from towpath.desired.ruleset import ruleset
from towpath.model.network import ClusterNetwork
from towpath.policy.engine import Batch, Engine

ENDPOINTS, POLICIES, LOCAL = 250_000, 10_000, 200
_PAGE_KB = resource.getpagesize() / 1024


def resident_mb() -> float:
    """Now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KB / 1024


def main() -> None:
    """Measure once."""
    before = resident_mb()
    everyone = tuple(endpoints(0, ENDPOINTS))
    written = tuple(policies(POLICIES))
    decoded = resident_mb()
    begun, spent = perf_counter(), process_time()
    engine = Engine()
    engine.apply(Batch(endpoints=everyone, policies=written))
    engine.set_local({f"cali{n}": everyone[n * (ENDPOINTS // LOCAL)].name for n in range(LOCAL)})
    table = ruleset(ClusterNetwork(), (), (), engine.program(), Peering())
    seconds, spent = perf_counter() - begun, process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(spent, 2),
        "mb": round(peak - before),
        "mb_of_objects": round(decoded - before),
        "elements": sum(len(one.elements) for one in table.sets.values()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
