"""Findings as SARIF 2.1.0, which code hosts show beside the source."""

from typing import Any

from towpath import __version__
from towpath.image.audit.rules import RULES, Found
from towpath.model.codes import CODES

_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "info": "note"}
_SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.0", "low": "2.0", "info": "0.0"}


def sarif(findings: tuple[Found, ...], source: str) -> dict[str, Any]:
    """One run; the rules that were broken are described in it."""
    codes = sorted({f.code for f in findings})
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "towpath image audit",
                        "version": __version__,
                        "rules": [_rule(code) for code in codes],
                    }
                },
                "results": [_result(f, codes.index(f.code), source) for f in findings],
            }
        ],
    }


def _rule(code: str) -> dict[str, Any]:
    rule, text = RULES[code], CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": text.title},
        "fullDescription": {"text": text.cause},
        "help": {"text": text.fix},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": list(rule.standards), "security-severity": _SCORES[rule.severity]},
    }


def _result(found: Found, index: int, source: str) -> dict[str, Any]:
    path, _, line = found.path.rpartition(":")
    region = {"region": {"startLine": int(line)}} if path and line.isdigit() else {}
    return {
        "ruleId": found.code,
        "ruleIndex": index,
        "level": _LEVELS[found.weight],
        "message": {"text": f"{found.path}: {found.message}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": (path if region else found.path).replace(" ", "%20")},
                    **region,
                },
                "logicalLocations": [{"fullyQualifiedName": f"{source}!{found.path}"}],
            }
        ],
    }
