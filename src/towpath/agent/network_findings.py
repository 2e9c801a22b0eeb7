"""What an operator should know about extra networks on this node."""

from towpath.agent.network_telling import Telling
from towpath.model.finding import Finding
from towpath.multinet.journal import Journal


def findings(journal: Journal, telling: Telling) -> list[Finding]:
    """Attachments that could not be detached, rows that cannot be read, annotations that wait."""
    found = []
    if journal.problem:
        fix = "see the message; pods with extra networks wait until then"
        found.append(_finding("TP6016", f"journal {journal.path}", journal.problem, fix))
    for row in journal.rows():
        if row.failures:
            pod = f"{row.pod.namespace}/{row.pod.name}" if row.pod is not None else row.call.container_id
            tried = f"{row.reference} ({row.call.ifname}) is not detached after {row.failures} tries"
            text = f"{tried}: {row.problem}"
            found.append(_finding("TP6010", f"Pod/{pod}", text, "act on the plugin's words"))
    for container_id, ifname in journal.damaged:
        text = f"what {ifname} was attached with cannot be read; its plugin's DEL cannot be run"
        fix = "release by hand what its plugin leased"
        found.append(_finding("TP6016", f"container {container_id}", text, fix))
    for ref in telling.waiting:
        text = "its annotation network-status is not written yet"
        found.append(_finding("TP6012", f"Pod/{ref.namespace}/{ref.name}", text, "see the agent's log"))
    return found


def _finding(code: str, what: str, message: str, fix: str) -> Finding:
    return Finding(code=code, object=what, message=message, fix=fix, severity="warning")
