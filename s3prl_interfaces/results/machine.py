"""A leaderboard for programs: CSV and JSON, in the units of the metrics and with every digit."""

import csv
import io
import json
from typing import Any

from s3prl_interfaces.results.leaderboard import Cell, Column, Leaderboard, Row

CSV_FIELDS = (
    "upstream",
    "task",
    "split",
    "metric",
    "higher_is_better",
    "protocol",
    "label",
    "interface",
    "interface_options",
    "mean",
    "std",
    "seeds",
    "difference",
    "best",
    "parameters",
    "config_sha256",
)


def render_json(board: Leaderboard) -> str:
    """Write the leaderboard as one JSON object; ``cells`` has a null where a result is missing."""
    tables = [
        {
            "upstream": table.upstream,
            "columns": [_column(column) for column in table.columns],
            "rows": [
                {
                    **_interface(row),
                    "cells": [None if cell is None else _cell(cell) for cell in row.cells],
                }
                for row in table.rows
            ],
            "notes": list(table.notes),
        }
        for table in board.tables
    ]
    data = {"baseline": board.baseline, "tables": tables}
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def render_csv(board: Leaderboard) -> str:
    """Write one line for each upstream, task and interface that has a result.

    Options are a JSON object, several seeds, parameter counts or hashes are set apart by spaces, and what
    does not exist is empty.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in board.tables:
        for index, column in enumerate(table.columns):
            for row in table.rows:
                cell = row.cells[index]
                if cell is None:
                    continue
                values = {"upstream": table.upstream, **_column(column), **_interface(row), **_cell(cell)}
                writer.writerow({name: _csv_value(value) for name, value in values.items()})
    return text.getvalue()


def _column(column: Column) -> dict[str, Any]:
    return {
        "task": column.task,
        "split": column.split,
        "metric": column.metric,
        "higher_is_better": column.higher_is_better,
        "protocol": dict(column.protocol),
    }


def _interface(row: Row) -> dict[str, Any]:
    return {"label": row.label, "interface": row.interface, "interface_options": dict(row.options)}


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "mean": cell.mean,
        "std": cell.std,
        "seeds": list(cell.seeds),
        "difference": cell.difference,
        "best": cell.is_best,
        "parameters": list(cell.parameters),
        "config_sha256": list(cell.configs),
    }


def _csv_value(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, (dict, bool)):
        return json.dumps(value, sort_keys=True)
    return value
