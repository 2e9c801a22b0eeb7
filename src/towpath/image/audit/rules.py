"""What is checked: each code's severity and the standards it comes from. Texts: ``model.codes_image``."""

from typing import Literal

import msgspec

from towpath.model.codes import CODES

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low", "info")

# Names of standards as reports print them.
D, K, P, S, F = "CIS Docker", "NSA/CISA", "Pod Security", "SLSA", "FIPS"


class Rule(msgspec.Struct, frozen=True):
    """``standards`` as ``CIS Docker 4.1``."""

    severity: Severity
    standards: tuple[str, ...]


RULES: dict[str, Rule] = {
    "TP8101": Rule("high", (f"{D} 4.1", K, f"{P} restricted")),
    "TP8102": Rule("medium", (f"{P} restricted", K)),
    "TP8103": Rule("low", (f"{D} 4.2", S)),
    "TP8104": Rule("info", (f"{D} 4.6",)),
    "TP8105": Rule("medium", (f"{D} 4.7", f"{D} 4.9", "dockle DKL-DI-0003")),
    "TP8106": Rule("critical", (f"{D} 4.10", K)),
    "TP8107": Rule("low", ("OCI image-spec annotations",)),
    "TP8108": Rule("medium", (f"{D} 4.4",)),
    "TP8109": Rule("info", (f"{S} L1",)),
    "TP8110": Rule("info", (f"{D} 4.5", f"{S} L2")),
    "TP8111": Rule("low", (f"{D} 4.7", "dockle DKL-DI-0006")),
    "TP8120": Rule("high", (f"{D} 4.3", K)),
    "TP8121": Rule("high", (f"{D} 4.3", K)),
    "TP8122": Rule("high", (f"{D} 4.3", K)),
    "TP8123": Rule("low", (f"{D} 4.3", "dockle DKL-DI-0005")),
    "TP8124": Rule("high", (f"{D} 4.8", f"{P} restricted")),
    "TP8125": Rule("high", (f"{D} 4.8", f"{P} restricted")),
    "TP8126": Rule("medium", ("dockle DKL-LI", K)),
    "TP8127": Rule("medium", ("dockle DKL-LI",)),
    "TP8128": Rule("medium", (S,)),
    "TP8129": Rule("high", (f"{D} 4.11", S)),
    "TP8130": Rule("critical", (f"{D} 4.10", K)),
    "TP8131": Rule("high", ("dockle DKL-LI-0001", "dockle DKL-LI-0002")),
    "TP8132": Rule("high", (K,)),
    "TP8140": Rule("medium", (K,)),
    "TP8141": Rule("low", (K,)),
    "TP8142": Rule("high", (K,)),
    "TP8143": Rule("low", (K,)),
    "TP8144": Rule("medium", (K,)),
    "TP8145": Rule("high", ("ELF closure",)),
    "TP8146": Rule("high", ("OCI image-spec",)),
    "TP8147": Rule("medium", ("ELF",)),
    "TP8150": Rule("info", (F,)),
    "TP8151": Rule("low", (F,)),
    "TP8152": Rule("low", (F,)),
    "TP8160": Rule("medium", ("runtime data",)),
    "TP8170": Rule("medium", (S, "NTIA")),
    "TP8171": Rule("high", (S, "NTIA")),
    "TP8172": Rule("high", (S, "NTIA")),
    "TP8180": Rule("high", (f"{D} 4.4",)),
    "TP8181": Rule("high", (f"{D} 4.4", K)),
    "TP8182": Rule("medium", (f"{D} 4.4",)),
    "TP8190": Rule("medium", ("OCI image-spec layers", f"{D} 4.10")),
    "TP8191": Rule("low", ("reproducible builds",)),
    "TP8192": Rule("low", ("budget",)),
    "TP8201": Rule("critical", (f"{D} 5.5", K, f"{P} baseline")),
    "TP8202": Rule("high", (f"{D} 5.4", K, f"{P} baseline")),
    "TP8203": Rule("medium", (f"{D} 5.4", K, f"{P} restricted")),
    "TP8204": Rule("high", (f"{D} 5.26", K, f"{P} restricted")),
    "TP8205": Rule("high", (f"{D} 4.1", K, f"{P} restricted")),
    "TP8206": Rule("medium", (f"{D} 5.13", K)),
    "TP8207": Rule("medium", (f"{D} 5.22", K, f"{P} restricted")),
    "TP8208": Rule("high", (f"{D} 5.6", K, f"{P} baseline")),
    "TP8209": Rule("high", (f"{D} 5.10", f"{D} 5.16", f"{D} 5.17", K, f"{P} baseline")),
    "TP8210": Rule("low", (f"{D} 5.11", f"{D} 5.12", K)),
    "TP8211": Rule("medium", (K,)),
    "TP8212": Rule("low", (f"{D} 4.2", S)),
    "TP8213": Rule("high", (S,)),
    "TP8214": Rule("high", (f"{D} 5.1", f"{D} 5.2", K, f"{P} baseline")),
}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One finding: ``path`` is the evidence (a file of the image, a field of the pod), ``message`` what was
    seen there. ``severity`` overrides the rule's where the finding knows better (a vulnerability's).
    """

    code: str
    path: str
    message: str
    severity: Severity | None = None

    @property
    def weight(self) -> Severity:
        """How bad it is."""
        return self.severity or RULES[self.code].severity

    def as_dict(self) -> dict[str, object]:
        """For JSON: everything, the rule's part too."""
        return {
            "code": self.code,
            "severity": self.weight,
            "path": self.path,
            "message": self.message,
            "title": CODES[self.code].title,
            "standards": list(RULES[self.code].standards),
            "fix": CODES[self.code].fix,
        }
