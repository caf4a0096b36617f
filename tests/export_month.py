"""A made-up month for the exports: every kind of charge, and every way in which a charge is shared."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from month import closed, cost, line, tokens, usage, write_config

CENTERS = {
    "CC-1": {"name": "Search", "account": "6150"},
    "CC-2": {"name": "=SUM(A1:A9) Ads", "account": "6160"},
    "CC-3": {"name": "Büro € Ops", "account": "6170"},
}
WORKSPACES = [
    {"id": "wrkspc_a", "name": "Search", "tags": {"env": "prod", "cost_center": "CC-1"}},
    {"id": "wrkspc_b", "name": "=1+1 Platform"},
    {"id": "wrkspc_c", "name": '<b>Keys & "Co"</b>'},
    {"id": "wrkspc_d", "name": "Nobody's"},
]
ALLOCATION = {
    "cost_centers": CENTERS,
    "rules": [
        {"workspace": "wrkspc_a", "to": "CC-1"},
        {"workspace": "wrkspc_b", "split_by": "label.team", "to": {"ads": "CC-2", "ops": "CC-3"}},
        {"workspace": "wrkspc_c", "api_key": "apikey_1", "to": "CC-1"},
        {"workspace": "wrkspc_c", "api_key": "apikey_2", "to": "CC-2"},
    ],
    "shared": [
        {"name": "Keys' rest", "workspace": "wrkspc_c", "split": "even"},
        {"name": "Default", "workspace": "default", "split": "proportional"},
    ],
}


def plain(day: str, cents: str, cost_type: str, **fields: Any) -> dict[str, Any]:
    """A cost line that is not of tokens."""
    none = dict.fromkeys(("model", "service_tier", "context_window", "inference_geo"))
    return cost(day, cents, None, cost_type=cost_type, **none | fields)


def rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Usages, cost lines, log lines."""
    fifth, sixth, c, none = "2026-10-05", "2026-10-06", {"workspace_id": "wrkspc_c"}, {"workspace_id": None}
    usages = [
        usage(f"{fifth}T10:00:00Z", input=2000, output=100, searches=3),
        usage("2026-10-20T10:00:00Z", input=190_000, model="claude-haiku-5-5"),
        usage(f"{fifth}T10:00:00Z", input=10, model="claude-nova-9"),
        usage(f"{fifth}T11:00:00Z", input=3001, workspace_id="wrkspc_b", api_key_id="apikey_b"),
        usage(f"{fifth}T11:00:00Z", input=500, workspace_id="wrkspc_b", inference_geo="us", api_key_id="apikey_b"),
        usage(f"{fifth}T12:00:00Z", input=700, api_key_id="apikey_1", **c),
        usage(f"{fifth}T12:00:00Z", input=1100, api_key_id="apikey_2", **c),
        usage(f"{fifth}T12:00:00Z", input=1234, api_key_id="apikey_3", **c),
        usage(f"{sixth}T12:00:00Z", input=999, api_key_id="apikey_3", **c),
        usage(f"{fifth}T13:00:00Z", write_5m=7777, read=12345, **none),
        usage(f"{sixth}T13:00:00Z", write_5m=1, write_1h=3, **none),
        usage(f"{sixth}T14:00:00Z", output=77, workspace_id="wrkspc_d", service_tier="batch"),
    ]
    costs = [
        cost(fifth, "1", "uncached_input_tokens"),
        cost(fifth, "0.25", "output_tokens"),
        plain(fifth, "3", "web_search"),
        cost("2026-10-20", "7.9", "uncached_input_tokens", model="claude-haiku-5-5"),
        cost(fifth, "0.07", "uncached_input_tokens", model="claude-nova-9"),
        cost(fifth, "1.5005", "uncached_input_tokens", workspace_id="wrkspc_b"),
        cost(fifth, "0.275", "uncached_input_tokens", workspace_id="wrkspc_b", inference_geo="us"),
        cost(fifth, "1.517", "uncached_input_tokens", **c),
        cost(sixth, "0.4995", "uncached_input_tokens", **c),
        cost(fifth, "4.860625", "cache_creation.ephemeral_5m_input_tokens", **none),
        cost(fifth, "0.61725", "cache_read_input_tokens", **none),
        cost(sixth, "0.000625", "cache_creation.ephemeral_5m_input_tokens", **none),
        cost(sixth, "0.003", "cache_creation.ephemeral_1h_input_tokens", **none),
        cost(sixth, "0.09625", "output_tokens", workspace_id="wrkspc_d", service_tier="batch"),
        plain(sixth, "12.345678901", "code_execution", **none),
        plain(sixth, "5", "session_usage"),
    ]
    lines = [
        line(f"{fifth}T10:30:00Z", "req_1", usage=tokens(2000, 100)),
        line(f"{fifth}T11:30:00Z", "req_2", workspace_id="wrkspc_b", api_key_id="apikey_b", usage=tokens(1000),
             labels={"team": "ads"}),
        line(f"{fifth}T11:31:00Z", "req_3", workspace_id="wrkspc_b", api_key_id="apikey_b", usage=tokens(1501),
             labels={"team": "ops"}),
        line("2026-10-20T10:40:00Z", "req_4", model="claude-haiku-5-5", usage=tokens(40_000)),
        line("2026-10-20T10:41:00Z", "req_5", model="claude-haiku-5-5", usage=tokens(150_000)),
    ]  # fmt: skip
    return usages, costs, lines


@contextmanager
def busy(folder: Path, **sections: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """The month, closed; ``sections`` of the config in place of those here."""
    usages, costs, lines = rows()
    logs = [{"name": "app", "path": "log*.jsonl", "labels": ["team"]}]
    config = write_config(folder, **{"request_logs": logs, "allocation": ALLOCATION} | sections)
    with closed(folder, usages, costs, lines, config=config, workspaces=WORKSPACES) as connection:
        yield connection
