"""A leaderboard for programs: CSV and JSON, in the units of the metrics and with every digit."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from s3prl_interfaces.results.board import Cell, Column, Leaderboard, Row, Table

CSV_FIELDS = (
    "upstream",
    "task",
    "split",
    "metric",
    "higher_is_better",
    "protocol",
    "folds",
    "label",
    "interface",
    "interface_options",
    "published_by",
    "mean",
    "std",
    "seeds",
    "data_seeds",
    "learning_rate",
    "learning_rates_tried",
    "difference",
    "low",
    "high",
    "p_value",
    "p_corrected",
    "significant",
    "best",
    "parameters",
    "macs_per_second",
    "config_sha256",
    "superb_s",
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
                    "superb_s": row.superb_s,
                    "cells": [None if cell is None else _cell(cell) for cell in row.cells],
                }
                for row in table.rows
            ],
            "superb_tasks": list(table.superb_tasks),
            "published": [
                {
                    "label": row.label,
                    "upstream": row.upstream,
                    "source": row.source,
                    "values": [
                        _in_unit(column, value) for column, value in zip(table.columns, row.values, strict=True)
                    ],
                }
                for row in table.published
            ],
            "notes": list(table.notes),
        }
        for table in board.tables
    ]
    problems = [{"folder": str(problem.folder), "problem": problem.text} for problem in board.problems]
    data = {"baseline": board.baseline, "tables": tables, "problems": problems}
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def render_csv(board: Leaderboard) -> str:
    """Write one line for each upstream, task and interface that has a result, then one for each published figure.

    ``published_by`` is empty in the lines that were measured. Options are a JSON object, several seeds, parameter
    counts or hashes are set apart by spaces, and what does not exist is empty (``-`` among others of its kind). Notes
    and the runs that do not count are in the other forms only.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in board.tables:
        for line in (*_measured(table), *_published(table)):
            writer.writerow({name: _csv_value(value) for name, value in line.items()})
    return text.getvalue()


def _measured(table: Table) -> Iterator[dict[str, Any]]:
    for index, column in enumerate(table.columns):
        for row in table.rows:
            cell = row.cells[index]
            if cell is None:
                continue
            values = _cell(cell)
            comparison = values.pop("comparison") or {}
            tested = {name: comparison[name] for name in CSV_FIELDS if name in comparison}
            values |= {**tested, "superb_s": row.superb_s}
            yield {"upstream": table.upstream, **_column(column), **_interface(row), **values}


def _published(table: Table) -> Iterator[dict[str, Any]]:
    for index, column in enumerate(table.columns):
        for row in table.published:
            value = row.values[index]
            if value is not None:
                figure = {"label": row.label, "published_by": row.source, "mean": _in_unit(column, value)}
                yield {"upstream": row.upstream, **_column(column), **figure}


def _in_unit(column: Column, published: float | None) -> float | None:
    # Without the digits that a division by 100 adds to 5.11.
    return None if published is None else round(published / column.scale, 12)


def _column(column: Column) -> dict[str, Any]:
    return {
        "task": column.task,
        "split": column.split,
        "metric": column.metric,
        "higher_is_better": column.higher_is_better,
        "protocol": dict(column.protocol),
        "folds": list(column.folds),
    }


def _interface(row: Row) -> dict[str, Any]:
    return {"label": row.label, "interface": row.interface, "interface_options": dict(row.options)}


def _cell(cell: Cell) -> dict[str, Any]:
    comparison = cell.comparison
    return {
        "mean": cell.mean,
        "std": cell.std,
        "seeds": list(cell.seeds),
        "data_seeds": list(cell.data_seeds),
        "learning_rate": cell.learning_rate,
        "learning_rates_tried": list(cell.rates_tried),
        "difference": cell.difference,
        "comparison": None
        if comparison is None
        else {
            "low": comparison.low,
            "high": comparison.high,
            "level": comparison.level,
            "p_value": comparison.p_value,
            "p_corrected": cell.p_corrected,
            "significant": cell.is_significant,
            "units": comparison.units,
            "resamples": comparison.resamples,
        },
        "best": cell.is_best,
        "parameters": list(cell.parameters),
        "macs_per_second": list(cell.macs_per_second),
        "config_sha256": list(cell.configs),
    }


def _csv_value(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join("-" if item is None else str(item) for item in value) if set(value) != {None} else ""
    if isinstance(value, (dict, bool)):
        return json.dumps(value, sort_keys=True)
    return value
