"""The picture of the bill: who pays, for which workspace, by which basis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from markupsafe import Markup, escape

from reconcile import money
from reconcile.render.words import usd

BASES = {
    "direct": "--accent",
    "key": "--by-key",
    "label": "--by-label",
    "shared": "--soft",
    "unallocated": "--alert",
}
"""The colors of the ribbons by their basis, in the order in which they lie."""

_NAMED = 14
"""How many workspaces and cost centers are named; the others are one more each."""
_LETTERS = 24
"""How long a name is in the picture; the tables have all of it."""
_OTHERS = "\0others"
_UNALLOCATED = "unallocated"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BAR, _LINE, _GAP = 860, 380, 250, 590, 9, 17, 5
"""In pixels: the picture, the height of all dollars, where the bars stand, how wide they are, a line of text."""


@dataclass(frozen=True)
class _Node:
    """A workspace or a cost center: its bar and the text beside it."""

    name: str
    shown_usd: Decimal
    height: float
    top: float
    color: str

    @property
    def bottom(self) -> float:
        """Where the next one may begin."""
        return self.top + max(self.height, _LINE)


def flow(rows: Sequence[Any], totals_usd: Mapping[str, Decimal]) -> Markup:
    """The whole bill as one picture: from workspaces, on the left, to those who pay, on the right.

    ``rows`` are those of ``report.flow``, ``totals_usd`` what the chargeback says of each cost center, in cents. A
    ribbon is as wide as its dollars. Credits have no width: they are in the figures beside the names, and in the
    tables. Drawn by hand, as chart libraries know no ribbons.
    """
    charged = [row for row in rows if row.amount_usd > 0]
    total_usd = sum((row.amount_usd for row in charged), Decimal(0))
    if not total_usd:
        return Markup()
    scale = _HEIGHT / float(total_usd)
    sources = _side(rows, lambda row: row.workspace_id or "", "workspaces", scale, _workspaces(rows, totals_usd))
    targets = _side(rows, lambda row: row.cost_center, "cost centers", scale, totals_usd)
    ribbons: dict[tuple[str, str, str], float] = {}
    for row in charged:
        source = row.workspace_id or ""
        key = (
            source if source in sources else _OTHERS,
            row.cost_center if row.cost_center in targets else _OTHERS,
            row.basis,
        )
        ribbons[key] = ribbons.get(key, 0.0) + float(row.amount_usd) * scale
    drawn = [
        *_ribbons(ribbons, sources, targets),
        *(_bar(node, _LEFT - _BAR, "end") for node in sources.values()),
        *(_bar(node, _RIGHT, "start") for node in targets.values()),
    ]
    height = max(node.bottom for side in (sources, targets) for node in side.values()) + 4
    label = "From workspaces to cost centers, ribbons as wide as their dollars; the figures are in the tables below"
    return Markup(  # noqa: S704 - every name in it is escaped
        f'<svg role="img" aria-label="{label}" width="{_WIDTH}" height="{height:.0f}"'
        f' viewBox="0 -2 {_WIDTH} {height:.0f}" font-size="12">{"".join(drawn)}</svg>'
    )


def _workspaces(rows: Sequence[Any], totals_usd: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """What each workspace came to, in cents that add up to the bill."""
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row.workspace_id or ""] = sums.get(row.workspace_id or "", Decimal(0)) + row.amount_usd
    printed = money.foot(list(sums.values()), sum(totals_usd.values(), Decimal(0)))
    return dict(zip(sums, printed, strict=True))


def _side(
    rows: Sequence[Any], id_of: Callable[[Any], str], noun: str, scale: float, shown_usd: Mapping[str, Decimal]
) -> dict[str, _Node]:
    """One side's bars from top to bottom: what is unallocated, the largest, and all others as one."""
    names = {id_of(row): _name(row, noun) for row in rows}
    widths = dict.fromkeys(names, 0.0)
    for row in rows:
        widths[id_of(row)] += max(float(row.amount_usd), 0.0) * scale
    ranked = sorted(widths, key=lambda one: (one != _UNALLOCATED, -widths[one], one))
    kept = ranked[: _NAMED if len(ranked) > _NAMED + 1 else None]
    rest = ranked[len(kept) :]
    nodes: dict[str, _Node] = {}
    top = 0.0
    for one in [*kept, *([_OTHERS] if rest else [])]:
        held = rest if one == _OTHERS else [one]
        nodes[one] = _Node(
            name=f"{len(rest)} other {noun}" if one == _OTHERS else names[one],
            shown_usd=sum((shown_usd[each] for each in held), Decimal("0.00")),
            height=sum(widths[each] for each in held),
            top=top,
            color="--alert" if one == _UNALLOCATED else "--ink",
        )
        top = nodes[one].bottom + _GAP
    return nodes


def _name(row: Any, noun: str) -> str:
    if noun == "workspaces":
        return str(row.workspace_name or row.workspace_id or "Workspace not known")
    return "Unallocated" if row.cost_center == _UNALLOCATED else str(row.name or row.cost_center)


def _ribbons(
    ribbons: Mapping[tuple[str, str, str], float], sources: Mapping[str, _Node], targets: Mapping[str, _Node]
) -> list[str]:
    places = [list(sources), list(targets), list(BASES)]
    at = {name: node.top for name, node in sources.items()}, {name: node.top for name, node in targets.items()}
    drawn = []
    for source, target, basis in sorted(
        ribbons, key=lambda key: tuple(place.index(part) for place, part in zip(places, key, strict=True))
    ):
        width = ribbons[source, target, basis]
        left, right, middle = at[0][source], at[1][target], (_LEFT + _RIGHT) // 2
        at[0][source] += width
        at[1][target] += width
        width = max(width, 0.6)
        there = f"{middle} {left:.1f} {middle} {right:.1f} {_RIGHT} {right:.1f}"
        back = f"{middle} {right + width:.1f} {middle} {left + width:.1f} {_LEFT} {left + width:.1f}"
        title = f"{sources[source].name} to {targets[target].name}"
        drawn.append(
            f'<path d="M{_LEFT} {left:.1f}C{there}v{width:.1f}C{back}z" fill="var({BASES[basis]})" fill-opacity="0.55">'
            f"<title>{escape(title)}</title></path>"
        )
    return drawn


def _bar(node: _Node, x: int, anchor: str) -> str:
    """A bar with its name and dollars beside it."""
    at = x - 8 if anchor == "end" else x + _BAR + 8
    baseline = node.top + max(node.height, _LINE) / 2 + 4
    name = node.name if len(node.name) <= _LETTERS else f"{node.name[: _LETTERS - 1]}…"
    return (
        f'<rect x="{x}" y="{node.top:.1f}" width="{_BAR}" height="{max(node.height, 1.0):.1f}"'
        f' fill="var({node.color})"/>'
        f'<text x="{at}" y="{baseline:.1f}" text-anchor="{anchor}" fill="var({node.color})">{escape(name)}'
        f' <tspan fill="var(--muted)">{usd(node.shown_usd)}</tspan><title>{escape(node.name)}</title></text>'
    )
