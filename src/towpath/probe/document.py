"""One HTML file that needs nothing else, in light colours, readable on paper and on a telephone. Pure."""

from collections.abc import Iterable
from html import escape

STYLE = """
:root{color-scheme:light}body{font:16px/1.5 system-ui,sans-serif;color:#111;background:#fff;margin:0 auto;
max-width:70rem;padding:1.5rem}h1{font-size:1.5rem;margin:0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1.6rem 0 .3rem}svg{width:100%;height:auto;font:11px system-ui,sans-serif}
.verdict{border-left:.6rem solid;padding:.6rem 1rem;margin:1rem 0;background:#f6f6f6}
.verdict b{font-size:1.4rem}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td{white-space:nowrap}th,td{text-align:right;padding:.2rem .6rem;border-bottom:1px solid #ddd}
th:first-child,td:first-child,.words th,.words td{text-align:left;vertical-align:top;white-space:normal}
th:first-child,td:first-child{min-width:11rem}
.key{display:inline-block;width:1.6rem;height:.8rem;vertical-align:middle;margin:0 .3rem 0 1rem}
.scroll{overflow-x:auto}details{margin:.5rem 0}summary{cursor:pointer;padding:.3rem 0}a{color:#0072b2}
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole file; ``body`` is HTML, ``title`` plain text."""
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
    )
    return f"{head}<body><main>{''.join(body)}</main></body></html>\n"


def table(rows: Iterable[Iterable[str]], *, words: bool = False) -> str:
    """Of plain text, the first row the heads. ``words``: to the left, since it is not figures."""
    cells = "".join(_rows(rows))
    kind = ' class="words"' if words else ""
    return f'<div class="scroll"><table{kind}>{cells}</table></div>'


def _rows(rows: Iterable[Iterable[str]]) -> Iterable[str]:
    for index, row in enumerate(rows):
        cell = "th" if index == 0 else "td"
        yield f"<tr>{''.join(f'<{cell}>{escape(text)}</{cell}>' for text in row)}</tr>"
