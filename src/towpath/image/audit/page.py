"""The audit as one HTML page that needs nothing else."""

from html import escape

from towpath.image.audit.audit import Report
from towpath.image.audit.rules import RULES, SEVERITIES, Found
from towpath.model.codes import CODES

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24;
background:#fff}
h1{font-size:1.5rem}
h2{font-size:1.15rem;margin-top:2rem}
code{font:13px ui-monospace,monospace;word-break:break-all}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid #d8dee4}
.critical,.high{color:#b3261e;font-weight:600}
.medium{color:#8a5a00;font-weight:600}
.low,.info,small{color:#57606a}
@media(prefers-color-scheme:dark){
body{background:#14171a;color:#e6e8ea}
td,th{border-color:#333a41}
.critical,.high{color:#ff8a80}
.medium{color:#ffc46b}
.low,.info,small{color:#9aa4ad}}
"""


def page(report: Report) -> str:
    """Verdict, findings worst first with fix and standard, packages."""
    counts = {s: sum(f.weight == s for f in report.findings) for s in SEVERITIES}
    verdict = ", ".join(f"{n} {s}" for s, n in counts.items() if n) or "nothing found"
    rows = "".join(map(_row, report.findings))
    packages = "".join(
        f"<tr><td>{p.kind}<td>{escape(p.name)}<td><code>{escape(p.version)}</code></tr>"
        for p in report.packages
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Image audit: {escape(report.source)}</title><style>{_STYLE}</style></head><body>
<h1>Image audit</h1>
<p><code>{escape(report.source)}</code> <code>{escape(report.digest)}</code></p>
<p><b>{escape(verdict)}</b>. User {escape(report.user or "root")}, {report.layers} layers,
{report.files} entries, {report.compressed / 1e6:.1f} MB compressed,
{report.unpacked / 1e6:.1f} MB unpacked.</p>
<h2>Findings</h2>
<table><tr><th>Severity</th><th>Code</th><th>Where</th><th>What, and the fix</th></tr>{rows}</table>
<h2>{len(report.packages)} packages</h2>
<table><tr><th>Kind</th><th>Name</th><th>Version</th></tr>{packages}</table>
</body></html>
"""


def _row(found: Found) -> str:
    text = CODES[found.code]
    standards = ", ".join(RULES[found.code].standards)
    return (
        f'<tr><td class="{found.weight}">{found.weight}</td><td><code>{found.code}</code></td>'
        f"<td><code>{escape(found.path)}</code></td>"
        f"<td>{escape(text.title)}: {escape(found.message)}<br>"
        f"<small>{escape(text.fix)} ({escape(standards)})</small></td></tr>"
    )
