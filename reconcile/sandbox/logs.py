"""What the organization's applications write: one line a request or event, in the canonical format `requests`."""

import gzip
import json
import re

from reconcile.sandbox.organization import LOGS, Log
from reconcile.sandbox.planting import null_id
from reconcile.sandbox.plants import usd
from reconcile.sandbox.rates import day_date
from reconcile.sandbox.traffic import DAY_MS, Event, Request, Touch

_HOUR_MS = 3_600_000
_NOTHING = Touch()
_DATED = re.compile(r"-\d{8}$")


class LogBook:
    """Collects lines and turns each log's day into a file: by the UTC day on which the line was written."""

    def __init__(self, *, bad_lines: bool) -> None:
        self._bad_lines = bad_lines
        self._lines: dict[str, list[tuple[int, str]]] = {name: [] for name in LOGS}

    def write(self, request: Request) -> None:
        """Log a request as its application does."""
        touch = request.touch or _NOTHING
        if not touch.logged or request.source.log is None:
            return
        log = LOGS[request.source.log]
        lines = self._lines[log.name]
        if touch.events:
            for event in touch.events:
                lines.append((event.at, _event_line(request, event)))
            return
        at = request.at if touch.at is None else touch.at
        line = _line(log, request, touch, _timestamp(log, request, touch))
        lines.append((request.at, line))
        if touch.copies:
            self._copy(log, request, touch, at, line)

    def _copy(self, log: Log, request: Request, touch: Touch, at: int, line: str) -> None:
        """The same request once more: as it stands, or as another log saw it a moment later."""
        later = min(at + 300, (at // DAY_MS + 1) * DAY_MS - 1)
        if log.name == "notebooks":
            gateway = LOGS["gateway"]
            self._lines["gateway"].append((later, _line(gateway, request, touch, instant(later))))
        else:
            self._lines[log.name].append((later, line))

    def files(self, day: int) -> dict[str, bytes]:
        """The day's files by path, and begin the next day. Every log has a file for every day."""
        written = {}
        for name, lines in self._lines.items():
            log = LOGS[name]
            lines.sort()
            texts = [line for _, line in lines]
            if self._bad_lines and name == "gateway" and texts and day % 7 == 0:
                texts.insert(len(texts) // 2, texts[len(texts) // 2][: len(texts[0]) // 2])
            text = "\n".join(texts) + "\n" if texts else ""
            on = day_date(day).isoformat()
            path = log.file.format(day=on, month=on[:7])
            body = text.encode()
            written[path] = gzip.compress(body, 4, mtime=0) if path.endswith(".gz") else body
            lines.clear()
        return written


_DAYS: dict[int, str] = {}


def instant(at: int, suffix: str = "Z") -> str:
    """Milliseconds since 1970 as a timestamp."""
    day, rest = divmod(at, DAY_MS)
    date = _DAYS.get(day)
    if date is None:
        date = _DAYS[day] = day_date(day).isoformat()
    seconds, milliseconds = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{date}T{hour:02d}:{minute:02d}:{second:02d}.{milliseconds:03d}{suffix}"


def _timestamp(log: Log, request: Request, touch: Touch) -> str:
    if touch.at is not None and log.clock_hours:
        return instant(touch.at, "")  # the local clock, without its offset
    if log.clock_hours:
        return instant(request.at + log.clock_hours * _HOUR_MS, f"+{log.clock_hours:02d}:00")
    return instant(request.at if touch.at is None else touch.at)


def _model_name(log: Log, request: Request, touch: Touch) -> str:
    if touch.bedrock:
        return f"us.anthropic.{request.model}-v1:0"
    name = touch.model or request.model
    if log.drops_dates and request.id[-2] in "01234567":
        name = _DATED.sub("", name)
    return log.prefix + name if request.id[-3] in "0123456789a" else name


def _workspace_field(log: Log, request: Request, touch: Touch) -> str:
    if not log.names_workspace:
        return ""
    workspace = request.source.workspace
    if workspace.is_default and request.id[-1] in "0123":
        return '"workspace_id": null, '  # its key tells
    return f'"workspace_id": "{touch.workspace_id or workspace.id}", '


def _line(log: Log, request: Request, touch: Touch, timestamp: str) -> str:
    key = request.source.key
    request_id = "null" if log.nulls_ids and null_id(request) else f'"{request.id}"'
    parts = [
        f'{{"request_id": {request_id}, "timestamp": "{timestamp}", "model": "{_model_name(log, request, touch)}", ',
        _workspace_field(log, request, touch),
        f'"api_key_id": "{key.id}", ' if key is not None and log.names_key else "",
        f'"usage": {_usage(log, request, touch)}',
    ]
    if touch.cost_pico is not None:
        parts.append(f', "cost_usd": "{usd(touch.cost_pico)}"')
    if touch.refused:
        parts.append(', "stop_reason": "refusal"')
    parts.append(f', "status": {touch.status}')
    if log.labels:
        team = f'"team": "{request.team}", ' if request.team is not None else ""
        parts.append(f', "labels": {{{team}"region": "eu-1"}}')
    parts.append("}")
    return "".join(parts)


def _usage(log: Log, request: Request, touch: Touch) -> str:
    hides = touch.hides
    written = request.write_5m + request.write_1h
    uncached = request.prompt if touch.inclusive else request.uncached
    split = (
        ""
        if hides == "split"
        else f'"cache_creation": {{"ephemeral_5m_input_tokens": {request.write_5m}, '
        f'"ephemeral_1h_input_tokens": {request.write_1h}}}, '
    )
    searches = (
        f', "server_tool_use": {{"web_search_requests": {request.searches}, "web_fetch_requests": 0}}'
        if request.searches
        else ""
    )
    tier = "" if hides == "service_tier" else f', "service_tier": "{request.tier}"'
    geo = f', "inference_geo": "{request.geo}"' if log.names_geo and hides != "inference_geo" else ""
    speed = "" if hides == "speed" or request.speed == "standard" else f', "speed": "{request.speed}"'
    iterations = f', "iterations": {_iterations(request, touch)}' if touch.iterations else ""
    return (
        f'{{"input_tokens": {uncached}, "cache_creation_input_tokens": {written}, '
        f'"cache_read_input_tokens": {request.read}, {split}"output_tokens": {request.output}'
        f"{searches}{tier}{geo}{speed}{iterations}}}"
    )


def _iterations(request: Request, touch: Touch) -> str:
    turns: list[dict[str, object]] = []
    for turn in touch.iterations:
        entry: dict[str, object] = {
            "type": turn.kind,
            "input_tokens": turn.uncached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": turn.output,
        }
        if turn.kind == "advisor_message":
            entry["model"] = turn.model
        turns.append(entry)
    turns.append(
        {
            "type": "message",
            "input_tokens": request.uncached,
            "cache_creation_input_tokens": request.write_5m + request.write_1h,
            "cache_read_input_tokens": request.read,
            "output_tokens": request.output,
        }
    )
    return json.dumps(turns)


def _event_line(request: Request, event: Event) -> str:
    source = request.source
    key = source.key
    usage: dict[str, object] = {
        "input_tokens": event.uncached,
        "cache_creation_input_tokens": None
        if event.uncached is None
        else (event.write_5m or 0) + (event.write_1h or 0),
        "cache_read_input_tokens": event.read,
        "output_tokens": event.output,
    }
    if event.is_start:
        usage["cache_creation"] = {
            "ephemeral_5m_input_tokens": event.write_5m,
            "ephemeral_1h_input_tokens": event.write_1h,
        }
        usage["service_tier"] = request.tier
        usage["inference_geo"] = request.geo
    elif event.searches:
        usage["server_tool_use"] = {"web_search_requests": event.searches, "web_fetch_requests": 0}
    return json.dumps(
        {
            "request_id": request.id,
            "timestamp": instant(event.at),
            "model": request.model,
            "workspace_id": source.workspace.id,
            "api_key_id": None if key is None else key.id,
            "event": "message_start" if event.is_start else "message_delta",
            "usage": usage,
            "status": 200,
        }
    )
