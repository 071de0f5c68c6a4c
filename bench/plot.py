"""Small SVG plots that read well on light and dark pages."""

import html
import math

COLOURS = {"echo": "#888888", "pushbridge": "#0a7d5a", "nchan": "#c2571a", "nginx": "#c2571a", "pushpin": "#6a4fb3"}
STYLE = """<style>text{font:12px system-ui,sans-serif;fill:#444}.t{font-size:14px;font-weight:600}
line,.axis{stroke:#bbb;stroke-width:1}@media(prefers-color-scheme:dark){text{fill:#ccc}line,.axis{stroke:#555}}</style>"""


def text(x, y, content, anchor="start", kind=""):
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{html.escape(content)}</text>'


def document(width, height, title, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
    return "\n".join([head, f"<title>{html.escape(title)}</title>", STYLE, text(10, 20, title, kind="t"), *parts, "</svg>", ""])


def lines(title, x_name, y_name, series):
    """Series of (x, values): a line through the least of each, on a log x axis; a bar shows the spread."""
    width, height, left, right, top, bottom = 640, 320, 60, 110, 50, 45
    xs = sorted({x for points in series.values() for x, _ in points})
    y_max = max(value for points in series.values() for _, values in points for value in values) * 1.15
    log = lambda x: math.log10(max(x, 1))
    low, high = log(xs[0]), log(xs[-1])
    across = lambda x: left + (width - left - right) * ((log(x) - low) / (high - low) if high > low else 0.5)
    down = lambda y: top + (height - top - bottom) * (1 - y / y_max)
    parts = [text(left, 42, y_name), text(left + (width - left - right) / 2, height - 8, f"{x_name} (log scale)", "middle")]
    step = nice(y_max / 5)
    for number in range(int(y_max / step) + 1):
        y = down(number * step)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(left - 6, y + 4, f"{number * step:g}", "end"))
    for x in xs:
        parts.append(text(across(x), height - bottom + 18, f"{x:,}", "middle"))
    for peer, points in series.items():
        colour = COLOURS[peer]
        way = " ".join(f"{across(x):.1f},{down(min(values)):.1f}" for x, values in points)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, values in points:
            at = across(x)
            parts.append(f'<path d="M{at:.1f} {down(min(values)):.1f}V{down(max(values)):.1f}" stroke="{colour}" stroke-width="1"/>')
            parts.append(f'<circle cx="{at:.1f}" cy="{down(min(values)):.1f}" r="3.5" fill="{colour}"/>')
        last_x, last = points[-1]
        parts.append(text(across(last_x) + 8, down(min(last)) + 4, f"{peer} {min(last):.2f}"))
    return document(width, height, title, parts)


def bars(title, groups):
    """Groups of (server, value), one bar each, on a log axis."""
    width, left, right, bar = 760, 330, 110, 16
    values = [value for _, several in groups for _, value in several]
    low, high = math.log10(min(values) / 2), math.log10(max(values))
    parts, y = [], 36
    for name, several in groups:
        parts.append(text(left - 8, y + 12 + bar * (len(several) - 1) / 2, name, "end"))
        for peer, value in several:
            length = (width - left - right) * (math.log10(value) - low) / (high - low)
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 3}" fill="{COLOURS[peer]}"/>')
            parts.append(text(left + length + 5, y + 11, f"{value:.2f} {peer}"))
            y += bar
        y += 10
    return document(width, y + 6, title, parts)


def nice(step):
    power = 10 ** math.floor(math.log10(step))
    return next(factor * power for factor in [1, 2, 5, 10] if factor * power >= step)
