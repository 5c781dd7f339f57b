"""Pictures of a run, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any, Final

import pygal
from pygal.style import Style

Rows = Sequence[Mapping[str, Any]]
STYLE: Final = Style(
    background="white",
    plot_background="white",
    font_family="sans-serif",
    title_font_size=16,
    label_font_size=14,
    major_label_font_size=14,
    legend_font_size=14,
    value_font_size=13,
    colors=("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#d62728", "#17becf", "#8c564b", "#7f7f7f"),
)
ROW_PX: Final = 34


def draw(data: Mapping[str, Any]) -> dict[str, bytes]:
    """A picture for each part that has one, by its name."""
    found = {}
    for name, part in data["parts"].items():
        if part.get("rows") and part["chart"] in _CHARTS:
            chart = _CHARTS[part["chart"]](part["title"], part["rows"])
            found[name] = chart.render(is_unicode=True).encode()
    return found


def _ratios(title: str, rows: Rows) -> Any:
    """Each one's rate as a part of its baseline's; the line shows the least and the greatest."""
    shown = [row for row in rows if row["ratio"]]
    chart = pygal.HorizontalBar(
        **_common(title), height=120 + ROW_PX * len(shown), show_legend=False, print_values=True
    )
    chart.value_formatter = lambda value: f"{value:.2f}"
    # The first is drawn at the bottom.
    shown.reverse()
    chart.x_labels = [f"{row['what']}: {row['who']}" for row in shown]
    chart.add(
        "",
        [
            {
                "value": row["ratio"]["median"],
                "ci": {"low": row["ratio"]["low"], "high": row["ratio"]["high"]},
            }
            for row in shown
        ],
    )
    return chart


def _rates(title: str, rows: Rows) -> Any:
    """Answers a second, by operation and who did it."""
    whats = list(dict.fromkeys(row["what"] for row in rows))
    whos = list(dict.fromkeys(row["who"] for row in rows))
    chart = pygal.HorizontalBar(
        **_common(title),
        height=170 + 18 * len(rows) + 14 * len(whats),
        legend_at_bottom=True,
        print_values=True,
        print_values_position="top",
        x_title="answers a second",
    )
    chart.value_formatter = lambda value: f"{value:,.0f}"
    whats.reverse()
    chart.x_labels = whats
    for who in reversed(whos):
        rate = {row["what"]: row["rate"]["median"] for row in rows if row["who"] == who}
        chart.add(who, [rate.get(what) for what in whats])
    return chart


def _connections(title: str, rows: Rows) -> Any:
    """Answers a second over the number of connections."""
    points: dict[str, dict[str, float]] = {}
    counts: list[str] = []
    for row in rows:
        what, _, count = row["what"].rpartition(", ")
        number = count.partition(" ")[0]
        points.setdefault(f"{what}: {row['who']}", {})[number] = row["rate"]["median"]
        if number not in counts:
            counts.append(number)
    chart = pygal.Line(
        **_common(title),
        **_legend(520, len(points)),
        x_title="connections",
        y_title="answers a second",
        dots_size=4,
    )
    chart.value_formatter = lambda value: f"{value:,.0f}"
    chart.x_labels = counts
    for name, found in points.items():
        chart.add(name, [found.get(count) for count in counts])
    return chart


def _latencies(title: str, rows: Rows) -> Any:
    """Percentiles over the arrival rate."""
    chart = pygal.Line(
        **_common(title),
        **_legend(560, 8),
        x_title="requests a second",
        y_title="milliseconds, logarithmic",
        logarithmic=True,
        dots_size=4,
    )
    chart.value_formatter = lambda value: f"{value:,g}"
    rates = sorted({row["target"] for row in rows})
    chart.x_labels = [f"{rate:,.0f}" for rate in rates]
    least, most = min(row["p50_ms"] for row in rows), max(row["p99_ms"] for row in rows)
    chart.y_labels = [10.0**power for power in range(floor(log10(least)), ceil(log10(most)) + 1)]
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        what = row["what"].rpartition(" at ")[0]
        for name in ("p50", "p99"):
            found.setdefault(f"{what}, {row['who']}, {name}", {})[row["target"]] = row[f"{name}_ms"]
    for name, values in found.items():
        chart.add(name, [values.get(rate) for rate in rates])
    return chart


def _common(title: str) -> dict[str, Any]:
    # No scripts: a picture in a document runs none, and none is to be fetched from elsewhere.
    return {
        "title": title,
        "style": STYLE,
        "js": [],
        "width": 1000,
        "disable_xml_declaration": True,
        "truncate_label": -1,
        "truncate_legend": -1,
        "spacing": 12,
        "margin": 24,
        "max_scale": 8,
    }


def _legend(height: int, names: int) -> dict[str, Any]:
    """Two columns below the picture: pygal makes room for one line of them."""
    more_px = 24 * ((names - 1) // 2)
    return {
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 2,
        "height": height + more_px,
        "margin_bottom": 24 + more_px // 2,
    }


_CHARTS: Final[dict[str, Callable[[str, Rows], Any]]] = {
    "ratios": _ratios,
    "rates": _rates,
    "connections": _connections,
    "latencies": _latencies,
}
