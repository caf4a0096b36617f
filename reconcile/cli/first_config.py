"""The config that `reconcile init` writes: an organization's own names, each safe on its line."""

import gzip
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING

from reconcile.cli.output import counted
from reconcile.errors import ConfigError

if TYPE_CHECKING:
    from reconcile.pull import Directory

_DATE = r"(?<!\d)20\d{2}-\d{2}-\d{2}(?!\d)"
_MONTH = r"(?<!\d)20\d{2}-\d{2}(?![\d-])"


def first_config(directory: "Directory", *, key_env: str, base_url: str, logs: Sequence[str]) -> str:
    """The text of a new config. Names come from the API: each is quoted, so that none can break out of its line."""
    tags = Counter(name for workspace in directory.workspaces for name, _ in workspace.tags)
    keys = Counter(key.workspace_id for key in directory.keys)
    rules = []
    for workspace in sorted(directory.workspaces, key=lambda one: (one.archived, one.name, one.id)):
        notes = [quoted(workspace.name), *(["archived"] if workspace.archived else [])]
        notes += [counted(keys[workspace.id], "key")] if keys[workspace.id] else []
        notes += [f"{quoted(name)}: {quoted(value)}" for name, value in workspace.tags]
        rules.append(f"  #- {{workspace: {quoted(workspace.id)}, to: CC-100}}  # {', '.join(notes)}")
    rules += [
        f"  #- {{tag: {quoted(name)}}}  # on {counted(count, 'workspace')}" for name, count in sorted(tags.items())
    ]
    default_id = directory.default_workspace_id
    return "\n".join(
        [
            "# Written by `reconcile init`. Every key with its default and unit: config.example.yaml.",
            "# To use a line that begins with `#` and no space, take the `#` away, and the `[]` or `{}` above it.",
            f"organization: {quoted(directory.organization.name)}",
            f"organization_id: {quoted(directory.organization.id)}",
            "data_dir: var",
            "billing:",
            f"  base_url: {quoted(base_url)}",
            f"  key: {{env: {key_env}}}",
            *([f"  default_workspace_id: {quoted(default_id)}"] if default_id else []),
            *logs,
            "tolerance: {usd: 1.00, percent: 0.5}",
            "allocation:",
            "  cost_centers: {}",
            '    #CC-100: {name: Search, account: "6150-100"}',
            "  rules: []",
            *rules,
            "  shared: []",
            "  #- {name: Default workspace, workspace: default, split: proportional}",
            "",
        ]
    )


def quoted(text: str) -> str:
    """A text as YAML has it in double quotes: printable and on one line, whatever it holds."""
    from yaml import safe_dump  # noqa: PLC0415

    clean = text.encode("utf-8", "replace").decode()
    return safe_dump(clean, default_style='"', width=sys.maxsize, allow_unicode=clean.isprintable()).strip()


def log_lines(path: Path, folder: Path) -> list[str]:
    """The config's `request_logs` for a log that was looked at; dates in its path become placeholders."""
    reader, labels = _look_at(path)
    absolute = path.absolute()
    name = re.sub(rf"{_DATE}|{_MONTH}", "", path.name.split(".")[0]).strip("-_") or absolute.parent.name or "log"
    shown = escape(str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute))
    shown = re.sub(_DATE, "{day}", shown)
    shown = re.sub(_MONTH, "{month}", shown)
    return [
        "request_logs:",
        f"  - name: {quoted(name)}",
        f"    format: {reader}",
        f"    path: {quoted(shown)}",
        f"    labels: [{', '.join(map(quoted, labels))}]",
    ]


def _look_at(path: Path) -> tuple[str, list[str]]:
    """The reader for a log, by its first lines, and the names of its labels."""
    if path.suffix in {".csv", ".parquet", ".zst"}:  # the first two are always `requests`, the third is not looked into
        return "requests", []
    labels: set[str] = set()
    found: Counter[str] = Counter()
    for line in _first_lines(path):
        if line.startswith(("event:", "data:")):
            found["messages"] += 1
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entry, dict):
            continue
        if {"request_id", "timestamp", "model", "usage"} <= entry.keys():
            found["requests"] += 1
            labels |= set(entry["labels"]) if isinstance(entry.get("labels"), dict) else set()
        elif {"message", "response", "result", "usage"} & entry.keys():
            found["messages"] += 1
    if not found:
        raise ConfigError(
            str(path), "looks like neither a `requests` nor a `messages` log", "See README, The request log"
        )
    return found.most_common(1)[0][0], sorted(labels)


def _first_lines(path: Path, count: int = 100) -> list[str]:
    try:
        stream: IO[str]
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8", errors="replace") as stream:
            return [line for line, _ in zip(stream, range(count), strict=False)]
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or "no gzip file"
        raise ConfigError(str(path), f"cannot be read ({why})", "Correct the path or its owner") from None
