"""The report for CI systems: a test case a preflight check, a finding of an image, a gate of a node. Pure."""

from xml.etree import ElementTree

from towpath.upgrade.audits import ImageAudit
from towpath.upgrade.evidence import GateSeen
from towpath.upgrade.report import NodeReport, Report


def junit(found: Report) -> str:
    """JUnit XML: what failed is a failure, what could not be told or was never reached is skipped."""
    root = ElementTree.Element("testsuites", name=f"upgrade of {found.daemonset} to {found.target}")
    suite = ElementTree.SubElement(root, "testsuite", name="preflight", tests=str(len(found.checks)))
    for check in found.checks:
        case = _case(suite, f"{check.number} {check.title}")
        if check.state in ("untold", "skipped"):
            ElementTree.SubElement(case, "skipped", message=f"{check.state}: {check.why}")
        elif check.told:
            ElementTree.SubElement(case, "system-out").text = "\n".join(check.told)
    for one in found.audits:
        _audit(root, one)
    for node in found.nodes:
        _node(root, node)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _audit(root: ElementTree.Element, audit: ImageAudit) -> None:
    """None is a failure of the upgrade: who made the plan knew, as with what preflight warned of."""
    suite = ElementTree.SubElement(root, "testsuite", name=f"image audit of {audit.source}")
    ElementTree.SubElement(_case(suite, "all"), "system-out").text = audit.verdict
    for finding in audit.findings:
        case = _case(suite, f"{finding.code} {finding.path}")
        ElementTree.SubElement(case, "system-out").text = f"{finding.severity}: {finding.told}"
    for change in audit.changes:
        ElementTree.SubElement(_case(suite, f"{change.kind} {change.what}"), "system-out").text = change.told
    suite.set("tests", str(len(suite)))


def _node(root: ElementTree.Element, node: NodeReport) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=node.node, tests=str(len(node.gates) + 1))
    case = _case(suite, "upgraded")
    if node.state in ("failed", "restored"):
        ElementTree.SubElement(case, "failure", message=node.why or "it did not pass its gates")
    elif node.state not in ("passed", "gone"):
        ElementTree.SubElement(case, "skipped", message=node.state)
    for gate in node.gates:
        _gate(_case(suite, gate.gate, gate.seconds), gate)


def _gate(case: ElementTree.Element, gate: GateSeen) -> None:
    if gate.state == "fail":
        ElementTree.SubElement(case, "failure", message=gate.saw)
    elif gate.state == "untold":
        ElementTree.SubElement(case, "skipped", message=gate.saw)
    else:
        ElementTree.SubElement(case, "system-out").text = gate.saw


def _case(suite: ElementTree.Element, name: str, seconds: float = 0.0) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", name=name, classname=suite.get("name", ""), time=f"{seconds:.1f}"
    )
