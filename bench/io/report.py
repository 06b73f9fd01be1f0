# SPDX-License-Identifier: MIT
"""
report.py - tables on the terminal, in Markdown, and as a picture

A table has a row for each peer: the median of its values, how many times ours that is better or
worse (the median of the ratios of single rounds, in which both were measured shortly after each other),
and what else was learnt about it.  Our own rows come first, the others from the best to the worst.
"""
import html
import statistics
import sys

BAR_CELLS = 24
EXTRAS = {  # key of a measurement: its heading
    "p50_us": "p50 us",
    "p99_us": "p99 us",
    "cpu_us": "CPU us",
}
OURS = "magpie"


class Table:
    """One table: the values of each peer, a list with one for each round."""

    def __init__(self, bench, title, unit, limits=(), goal=None, peer_goal=1.0, key="rate",
                 less_is_better=False, extras=("p99_us", "cpu_us"), goals=None, target=None):
        self.bench, self.title, self.unit, self.key = bench, title, unit, key
        self.limits, self.goal, self.peer_goal = list(limits), goal, peer_goal
        self.less_is_better, self.extras, self.target = less_is_better, extras, target
        self.goals = goals or {}  # other goals: {peer: ratio}
        self.values = {}

    def add(self, peer, value):
        self.values.setdefault(peer, []).append(value)

    def median(self, peer, key=None):
        found = [v[key or self.key] for v in self.values[peer] if v.get(key or self.key) is not None]
        return statistics.median(found) if found else None

    def ratio(self, peer, ours=OURS):
        """How many times better ours is: the median over the rounds that both have."""
        if peer not in self.values or ours not in self.values:
            return None
        pairs = zip(self.values[ours], self.values[peer])
        ratios = [(b[self.key] / a[self.key] if self.less_is_better else a[self.key] / b[self.key])
                  for a, b in pairs if a.get(self.key) and b.get(self.key)]
        return statistics.median(ratios) if ratios else None

    def peers(self):
        """Ours, then the others, the best one first."""
        names = [n for n in self.values if self.median(n) is not None]
        sign = 1 if self.less_is_better else -1
        return sorted(names, key=lambda n: (not n.startswith(OURS), sign * self.median(n)))

    def rivals(self):
        return [n for n in self.peers() if not n.startswith(OURS) and n not in self.limits]

    def verdicts(self):
        """Sentences on the goals."""
        out = []

        def against(what, name, goal, strict):
            r = self.ratio(name)
            if r is None or goal is None:
                return
            met = r > goal if strict else r >= goal
            sign = ">" if strict else ">="
            out.append(f"{what} ({name}): {r:.2f}, goal {sign} {goal:g}: {'reached' if met else 'MISSED'}")

        limits = [n for n in self.peers() if n in self.limits]
        if limits:
            against("against the limit", limits[0], self.goal, False)
        rivals = [n for n in self.rivals() if n not in self.goals]
        if rivals:
            against("against the best peer", rivals[0], self.peer_goal, True)
        for name, goal in self.goals.items():
            against("against", name, goal, False)
        if self.target is not None and OURS in self.values:
            value = self.median(OURS)
            met = value <= self.target if self.less_is_better else value >= self.target
            sign = "<=" if self.less_is_better else ">="
            out.append(f"{number(value)} {self.unit}, goal {sign} {self.target:g}: "
                       f"{'reached' if met else 'MISSED'}")
        return out

    def rows(self):
        """(peer, median, spread, ratio, [extras]) as texts."""
        for name in self.peers():
            found = [v[self.key] for v in self.values[name] if v.get(self.key) is not None]
            middle = self.median(name)
            spread = (max(found) - min(found)) / middle * 50 if middle else 0
            r = self.ratio(name)
            extras = [number(self.median(name, key)) for key in self.used_extras()]
            yield name, number(middle), f"{spread:.0f} %", "" if r is None else f"{r:.2f}", extras

    def used_extras(self):
        return [k for k in self.extras
                if k != self.key and any(v.get(k) is not None for vs in self.values.values() for v in vs)]


def number(x):
    """Three significant digits, with separators of thousands."""
    if x is None:
        return ""
    if abs(x) >= 1000:
        digits = len(str(int(abs(x))))
        return f"{round(x, 3 - digits):,.0f}"
    return f"{x:.3g}"


def headings(table):
    return ["", table.unit, "+-", "ours is x"] + [EXTRAS[k] for k in table.used_extras()]


def bar(share):
    eighths = round(share * BAR_CELLS * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def print_table(table, out=sys.stdout):
    rows = [[n, m, s, r, *e] for n, m, s, r, e in table.rows()]
    if not rows:
        return
    better = "less is better" if table.less_is_better else "more is better"
    lines = [headings(table)] + rows
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    most = max(table.median(n) for n in table.peers())
    print(f"\n{table.title} ({better})", file=out)
    for i, line in enumerate(lines):
        text = "  ".join(f"{c:<{w}}" if k == 0 else f"{c:>{w}}" for k, (c, w) in enumerate(zip(line, widths)))
        if out.isatty() and i > 0 and most:
            text += "  " + bar(table.median(line[0]) / most)
        print("  " + text.rstrip(), file=out)
    for sentence in table.verdicts():
        print(f"  -> {sentence}", file=out)
    out.flush()


def markdown(tables, header, skipped):
    parts = [f"# I/O benchmarks\n\n{header}\n"]
    for table in tables:
        rows = list(table.rows())
        if not rows:
            continue
        better = "less is better" if table.less_is_better else "more is better"
        heads = headings(table)
        parts.append(f"## {table.title}\n\n{better}; \"ours is x\": how many times better magpie is\n")
        lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
        for name, middle, spread, ratio, extras in rows:
            cells = [f"**{name}**" if name.startswith(OURS) else name, middle, spread, ratio, *extras]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
        if table.verdicts():
            parts.append("\n".join(f"- {s}" for s in table.verdicts()) + "\n")
    if skipped:
        parts.append("## Left out\n\n" + "\n".join(f"- {b}, {n}: {why}" for (b, n), why in skipped.items())
                     + "\n")
    return "\n".join(parts)


# ---- the picture --------------------------------------------------------------------------

WIDTH, LABEL, VALUE, ROW, HEAD, TOP, COLUMNS = 560, 190, 80, 20, 44, 56, 2
COLOURS = {"ours": "#1f6feb", "limit": "#9aa4af", "peer": "#d0a24c"}


def picture(tables, header):
    """An SVG: a block of bars for each table, in two columns; readable on white and on black."""
    tables = [t for t in tables if t.peers()]
    heights = [0] * COLUMNS
    blocks = []
    for table in tables:
        column = heights.index(min(heights))
        blocks.append(block(table, column * WIDTH, TOP + heights[column]))
        heights[column] += HEAD + ROW * len(table.peers()) + 16
    height = TOP + max(heights, default=0)
    style = ("text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:13px}"
             ".u{fill:#6e7781;font-size:11px}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * COLUMNS}" height="{height}" '
            f'viewBox="0 0 {WIDTH * COLUMNS} {height}" role="img">\n<style>{style}</style>\n'
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
            + "".join(f'<text x="12" y="{22 + 16 * i}" class="u">{html.escape(line)}</text>\n'
                      for i, line in enumerate(header.split("; ", 1)))
            + "".join(blocks) + "</svg>\n")


def block(table, x, y):
    peers = table.peers()
    most = max(table.median(n) for n in peers) or 1
    room = WIDTH - LABEL - VALUE - 24
    better = "less is better" if table.less_is_better else "more is better"
    out = [f'<text x="{x + 12}" y="{y + 18}" class="t">{html.escape(table.title)}</text>'
           f'<text x="{x + 12}" y="{y + 34}" class="u">{html.escape(table.unit)}, {better}</text>\n']
    for i, name in enumerate(peers):
        value, top = table.median(name), y + HEAD + i * ROW
        kind = "ours" if name.startswith(OURS) else "limit" if name in table.limits else "peer"
        bold = ' style="font-weight:600"' if kind == "ours" else ""
        length = max(1, room * value / most)
        out.append(
            f'<text x="{x + LABEL}" y="{top + 12}" text-anchor="end"{bold}>{html.escape(name)}</text>'
            f'<rect x="{x + LABEL + 8}" y="{top}" width="{length:.1f}" height="{ROW - 5}" rx="2" '
            f'fill="{COLOURS[kind]}"/>'
            f'<text x="{x + LABEL + 14 + length:.1f}" y="{top + 12}"{bold}>{number(value)}</text>\n')
    return "".join(out)
