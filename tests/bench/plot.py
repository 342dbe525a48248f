"""A picture of who sends how many mails a second: ``python -m tests.bench.plot FIGURES.json docs/performance.svg``.

Bars of the figures of `peers`, the fastest first. Plain SVG, on a ground of its own, so that it
can be read on any page; its colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from tests.bench.figures import Figure, from_json, shown

WIDTH, ROW, LABELS, MARGIN, HEAD = 760, 30, 250, 16, 62
BAR = 20
STYLE = """\
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .ground { fill: #ffffff; stroke: #d1d9e0 }
  .title { font-size: 15px; font-weight: 600 }
  .note { font-size: 12px; fill: #59636e }
  .label { text-anchor: end }
  .other { fill: #9aa4af }
  .ours { fill: #1a7f5a }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #161b22; stroke: #3d444d }
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
    .other { fill: #59636e }
    .ours { fill: #3fb887 }
  }"""
OURS = "Outbox"


def rates(figures: Iterable[Figure]) -> list[tuple[str, float]]:
    """Name and mails a second of every program, the fastest first."""
    found = [(each.name, each.value) for each in figures if each.topic == "peers" and each.unit == "mails/s"]
    return sorted(found, key=lambda pair: -pair[1])


def svg(figures: Iterable[Figure], where: dict[str, object]) -> str:
    """The picture. `where` is what the figures say of their machine."""
    bars = rates(figures)
    if not bars:
        raise ValueError("there are no figures of the topic peers; run bin/bench --peers --json FILE")
    height = HEAD + ROW * len(bars) + MARGIN
    scale = (WIDTH - LABELS - MARGIN - 70) / bars[0][1]
    note = f"2 kB text mails, drained to smtp-sink on the same machine ({where.get('cores')} cores), {where.get('on')}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title">',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'<text id="title" class="title" x="{MARGIN}" y="26">Mails a second, out of each program\'s own queue</text>',
        f'<text class="note" x="{MARGIN}" y="46">{escape(note)}</text>',
    ]
    for row, (name, rate) in enumerate(bars):
        top, middle, length = HEAD + ROW * row, HEAD + ROW * row + 15, max(1.0, rate * scale)
        kind = "ours" if name.startswith(OURS) else "other"
        lines += [
            f'<text class="label" x="{LABELS - 10}" y="{middle}">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3"/>',
            f'<text x="{LABELS + length + 8:.1f}" y="{middle}">{shown(rate)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def main(source: str, target: str) -> None:
    Path(target).write_text(svg(*from_json(Path(source).read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
