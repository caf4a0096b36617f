"""The pages' charts as inline SVG, drawn without a browser."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any

from markupsafe import Markup, escape

from reconcile.render.words import dollars, quantity, usd

# Placeholders that no chart library changes; in the page they are the style sheet's colors, light or dark.
_INK, _MUTED, _RULE, _ACCENT, _SOFT, _ALERT = (f"#11110{digit}" for digit in range(1, 7))
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _RULE: "--rule",
    _ACCENT: "--accent",
    _SOFT: "--soft",
    _ALERT: "--alert",
}
_FONT = "Liberation Sans"  # comes with vl-convert: text is measured the same on every machine


class Charts:
    """Draws the pages' charts as inline SVG. A chart needs numbers to place its marks; every label comes as text."""

    def __init__(self) -> None:
        import altair as alt  # noqa: PLC0415 - heavy, and only pages need it
        import vl_convert  # noqa: PLC0415

        self._alt: Any = alt
        self._convert = vl_convert.vegalite_to_svg
        days = self._alt.Chart(self._alt.Data(values=[])).mark_bar(color=_ACCENT, width={"band": 0.7})
        self._days = self._spec(  # made once: there may be hundreds of statements
            days.encode(x=self._day_axis(), y=self._dollar_axis("usd:Q")).properties(width=860, height=150)
        )

    def waterfall(self, bridge: Sequence[Any]) -> Markup:
        """The bridge: one line a total or step, from where it starts to where it ends."""
        alt = self._alt
        steps = []
        for number, row in enumerate(bridge):
            end = row.running_usd
            start = end - (row.amount_usd or 0)
            steps.append(
                {
                    "row": number,
                    "next": min(number + 1, len(bridge) - 1),
                    "title": row.title,
                    "start": float(start),
                    "end": float(end),
                    "right": float(max(start, end)),
                    "label": usd(end) if row.kind == "total" else usd(row.amount_usd, signed=True),
                    "kind": _kind_of_step(row),
                }
            )
        if not steps:
            return Markup()
        low = min(min(step["start"], step["end"]) for step in steps)
        high = max(step["right"] for step in steps)
        span = (high - low) or 1.0
        scale = alt.Scale(domain=[low - span * 0.02, high + span * 0.16], nice=False)
        x = alt.X("start:Q", scale=scale, axis=None)
        y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.34, paddingOuter=0.17))
        color = alt.Color(
            "kind:N",
            scale=alt.Scale(domain=["total", "up", "down", "residual"], range=[_INK, _ACCENT, _SOFT, _ALERT]),
            legend=None,
        )
        base = alt.Chart(alt.Data(values=steps))
        is_total = alt.datum.kind == "total"
        names = base.encode(y=y, x=alt.value(-12), text="title:N")
        numbers = base.encode(y=y, x=alt.X("right:Q"), text="label:N")
        chart = alt.layer(
            base.mark_rule(color=_RULE).encode(x=alt.X("end:Q", scale=scale, axis=None), y=y, y2="next:O"),
            base.transform_filter(alt.datum.kind != "total").mark_bar().encode(x=x, x2="end:Q", y=y, color=color),
            base.transform_filter(is_total).mark_tick(thickness=3, color=_INK).encode(x=x, y=y),
            names.transform_filter(is_total).mark_text(align="right", fontWeight="bold", color=_INK),
            names.transform_filter(alt.datum.kind != "total").mark_text(align="right", color=_INK),
            numbers.transform_filter(is_total).mark_text(align="left", dx=8, fontWeight="bold", color=_INK),
            numbers.transform_filter(alt.datum.kind != "total").mark_text(align="left", dx=8, color=_INK),
        ).properties(width=600, height=alt.Step(24))
        return self._svg(
            chart, "Bridge from logged to billed: " + ", ".join(f"{s['title']} {s['label']}" for s in steps)
        )

    def daily(self, days: Sequence[Any]) -> Markup:
        """What was reported each day, and how much of it the logs hold."""
        alt = self._alt
        rows = [
            {
                "day": row.day.day,
                "recorded": float(row.recorded_usd or 0),
                "reported": float(row.reported_usd or 0),
                "billed": float(row.billed_usd) or None,  # no tick on a day without a bill
            }
            for row in days
        ]
        if not any(row["recorded"] or row["reported"] or row["billed"] for row in rows):
            return Markup()
        x = self._day_axis()
        base = alt.Chart(alt.Data(values=rows))
        chart = alt.layer(
            base.mark_bar(color=_SOFT, width={"band": 0.78}).encode(x=x, y=self._dollar_axis("reported:Q")),
            base.mark_bar(color=_ACCENT, width={"band": 0.42}).encode(x=x, y=self._dollar_axis("recorded:Q")),
            base.mark_tick(color=_INK, thickness=2, width={"band": 0.78}).encode(x=x, y=self._dollar_axis("billed:Q")),
        ).properties(width=860, height=200)
        return self._svg(chart, "Recorded, reported and billed dollars by day; the figures are in the table below")

    def days(self, amounts: Sequence[tuple[date, Decimal]]) -> Markup:
        """One cost center's direct dollars by day."""
        if not any(amount_usd for _, amount_usd in amounts):
            return Markup()
        spec = {**self._days, "data": {"values": [{"day": on.day, "usd": float(usd_on)} for on, usd_on in amounts]}}
        return self._svg(spec, "Dollars by day; the figures are in the table below")

    def curve(self, hours: Sequence[Any]) -> Markup:
        """A shifted log over the hours of the day: as logged, with its clock set right, and as reported."""
        rows = [
            {"hour": row.hour_of_day, "side": side, "tokens": getattr(row, f"{side}_tokens")}
            for row in hours
            for side in ("logged", "reported", "set_right")
        ]
        label = "Output tokens by hour of the day: as logged, with the clock set right, and as reported"
        return self._svg(self._curve | {"data": {"values": rows}}, label)

    def sides(self, sides: Sequence[Any], meters: Mapping[str, str]) -> Markup:
        """Where a confusion took quantities from, to the left, and where they are reported, to the right."""
        reach = max(abs(side.quantity) for side in sides)
        rows = [
            {
                "row": number,
                "name": _name_of_side(side, meters),
                "zero": 0,
                "part": side.quantity / reach,
                "kind": _direction(side.quantity),
                "label": f"{quantity(side.quantity, signed=True)} tokens, {dollars(side.amount_usd, signed=True)}",
            }
            for number, side in enumerate(sides)
        ]
        label = ", ".join(f"{row['name']} {row['label']}" for row in rows)
        return self._svg(self._sides | {"data": {"values": rows}}, f"Recorded elsewhere than reported: {label}")

    def moved(self, days: Sequence[Any]) -> Markup:
        """What was counted on another day than it was logged on, day by day."""
        rows = [
            {
                "day": date.fromisoformat(row.at_value).day,
                "tokens": row.quantity,
                "kind": _direction(row.quantity),
            }
            for row in days
        ]
        return self._svg(
            self._moved | {"data": {"values": rows}},
            "Tokens by day: logged there and counted on the day beside it, or the reverse",
        )

    # The pictures of findings are drawn from specs that are made once: a spec costs more than a drawing.

    @cached_property
    def _curve(self) -> dict[str, Any]:
        alt = self._alt
        axis = alt.Axis(title=None, values=list(range(0, 24, 3)), grid=False, ticks=False, domainColor=_RULE)
        base = alt.Chart(alt.Data(values=[])).encode(
            x=alt.X("hour:Q", scale=alt.Scale(domain=[0, 23], nice=False), axis=axis), y=self._token_axis()
        )
        lines = (
            ("reported", {"color": _SOFT, "strokeWidth": 6}),
            ("logged", {"color": _ALERT, "strokeWidth": 1.5, "strokeDash": [5, 3]}),
            ("set_right", {"color": _ACCENT, "strokeWidth": 1.5}),
        )
        layers = [base.transform_filter(alt.datum.side == side).mark_line(**style) for side, style in lines]
        return self._spec(alt.layer(*layers).properties(width=560, height=130))

    @cached_property
    def _sides(self) -> dict[str, Any]:
        alt = self._alt
        base = alt.Chart(alt.Data(values=[])).encode(
            y=alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0.34, paddingOuter=0.17))
        )
        scale = alt.Scale(domain=[-1, 1], nice=False)
        x = alt.X("part:Q", scale=scale, axis=None)
        chart = alt.layer(
            base.mark_bar().encode(x=x, x2="zero:Q", color=self._direction_color()),
            base.mark_tick(color=_INK, thickness=1, height=24).encode(x=alt.X("zero:Q", scale=scale, axis=None)),
            base.mark_text(align="right", color=_INK, limit=200).encode(x=alt.value(-12), text="name:N"),
            base.mark_text(align="left", color=_INK).encode(x=alt.value(292), text="label:N"),
        )
        return self._spec(chart.properties(width=280, height=alt.Step(24)))

    @cached_property
    def _moved(self) -> dict[str, Any]:
        chart = self._alt.Chart(self._alt.Data(values=[])).mark_bar(width={"band": 0.7})
        encoded = chart.encode(x=self._day_axis(), y=self._token_axis(), color=self._direction_color())
        return self._spec(encoded.properties(width=560, height=130))

    def _direction_color(self) -> Any:
        alt = self._alt
        return alt.Color("kind:N", scale=alt.Scale(domain=["from", "to"], range=[_SOFT, _ACCENT]), legend=None)

    def _token_axis(self) -> Any:
        alt = self._alt
        axis = alt.Axis(
            title=None, format="~s", tickCount=3, domain=False, ticks=False, gridColor=_RULE, labelPadding=8
        )
        return alt.Y("tokens:Q", axis=axis, stack=None)

    def _day_axis(self) -> Any:
        alt = self._alt
        return alt.X("day:O", axis=alt.Axis(title=None, labelAngle=0, ticks=False, domainColor=_RULE, labelPadding=6))

    def _dollar_axis(self, field: str) -> Any:
        alt = self._alt
        axis = alt.Axis(
            title=None, format="$,.2~f", tickCount=4, domain=False, ticks=False, gridColor=_RULE, labelPadding=8
        )
        return alt.Y(field, axis=axis, stack=None)

    def _spec(self, chart: Any) -> dict[str, Any]:
        alt = self._alt
        spec: dict[str, Any] = chart.configure(
            aria=False,
            background="transparent",
            font=_FONT,
            padding=2,
            view=alt.ViewConfig(stroke=None),
            axis=alt.AxisConfig(labelColor=_MUTED, labelFontSize=11),
            text=alt.MarkConfig(fontSize=12),
        ).to_dict()
        return spec

    def _svg(self, chart: Any, label: str) -> Markup:
        """The chart, or the spec of one, with the style sheet's colors."""
        text: str = self._convert(chart if isinstance(chart, dict) else self._spec(chart))
        for placeholder, variable in _VARIABLES.items():
            text = text.replace(f'="{placeholder}"', f'="var({variable})"')
        labeled = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
        return Markup(labeled)  # noqa: S704 - vega escapes its text


def _direction(moved_quantity: int) -> str:
    """Whether a quantity was taken from there, or stands there."""
    return "from" if moved_quantity < 0 else "to"


def _name_of_side(side: Any, meters: Mapping[str, str]) -> str:
    if side.is_rest:
        return "others"
    return side.workspace_name or meters.get(side.at_value, side.at_value) or "not known"


def _kind_of_step(row: Any) -> str:
    if row.kind == "total":
        return "total"
    if row.reason == "residual":
        return "residual"
    return "up" if row.amount_usd >= 0 else "down"
