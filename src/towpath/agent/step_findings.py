"""What a step could not do, and what it found in the way, as findings."""

from towpath.agent.reconciler import Step
from towpath.kernel.port import KernelRefused
from towpath.model.finding import Finding


def step_findings(step: Step, node: str) -> list[Finding]:
    """Refused operations, pods' links that are gone, foreign devices of our names."""
    return [
        *(_refusal(op.describe(), error, node) for op, error in step.failed),
        *(_gone(name, node) for name in step.missing),
        *(_foreign(told, node) for told in step.foreign),
    ]


def blind(node: str, problem: str) -> Finding:
    """The kernel could not be compared at all."""
    fix = "see the agent's log; what is in the kernel stays as it is meanwhile"
    return Finding(code="TP1022", object=f"Node/{node}", message=problem, fix=fix)


def _refusal(operation: str, error: KernelRefused, node: str) -> Finding:
    return Finding(
        code="TP1020",
        object=f"Node/{node}",
        message=f"{operation}: {error.reason}",
        fix=error.hint or "see what else manages this node's network; it is tried again and again",
    )


def _foreign(told: str, node: str) -> Finding:
    fix = "find out whose it is; rename or delete it (ip link del), and ours is made at once"
    return Finding(code="TP1024", object=f"Node/{node}", message=told, fix=fix)


def _gone(link: str, node: str) -> Finding:
    return Finding(
        code="TP3016",
        object=f"{link} on {node}",
        message="the link of a pod is gone, and only the runtime can make a new one",
        fix="delete the pod; its controller makes another",
    )
