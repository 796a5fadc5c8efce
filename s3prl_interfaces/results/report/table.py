"""The leaderboard's table as HTML."""

from xml.etree.ElementTree import Element

from s3prl_interfaces.results import display
from s3prl_interfaces.results.board import Cell, Column, PublishedRow, Row, Table
from s3prl_interfaces.results.report.markup import append, element
from s3prl_interfaces.results.report.pictures import Numbers

SIGNIFICANCE_MARK = "†"


def leaderboard_table(table: Table, name: str) -> Element:
    """Draw one upstream's table in a box that scrolls by itself; ``name`` makes its ids."""
    head = element("tr", element("th", "interface", scope="col"))
    for index, column in enumerate(table.columns):
        where = element("small", f"{column.split}, {display.metric_title(column)}")
        append(head, element("th", column.heading, element("br"), where, scope="col"))
        if display.has_differences(table, index):
            append(head, element("th", element("abbr", "Δ", title="difference to the baseline"), scope="col"))
    for title in _last_titles(table):
        append(head, element("th", title, scope="col"))
    body = element("tbody", *(_row(table, row) for row in table.rows))
    for published in table.published:
        append(body, _published(table, published))
    caption = element("caption", f"Leaderboard of {table.upstream}", id=f"{name}--caption")
    return scroll_box(element("table", caption, element("thead", head), body, class_="board"), f"{name}--caption")


def numbers_table(numbers: Numbers, title: str) -> Element:
    """Draw what a figure shows as a table."""
    head = element("tr", *(element("th", text, scope="col") for text in numbers.headings))
    rows = (
        element("tr", element("th", row[0], scope="row"), *(element("td", text) for text in row[1:]))
        for row in numbers.rows
    )
    return element("table", element("caption", title), element("thead", head), element("tbody", *rows))


def scroll_box(content: Element, labelled_by: str) -> Element:
    """Let wide content scroll in a box of its own, with the keyboard too."""
    return element("div", content, class_="scroll", role="region", tabindex="0", aria_labelledby=labelled_by)


def _last_titles(table: Table) -> list[str]:
    superb = [display.SUPERB_TITLE] if table.superb_tasks else []
    return [*superb, "params", *(["MACs/s"] if display.has_macs(table) else []), "seeds"]


def _row(table: Table, row: Row) -> Element:
    name, bracket, options = row.label.partition("(")
    # Long options go on a line of their own.
    line = element("tr", element("th", name, element("wbr"), bracket + options, scope="row"))
    for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        spread = display.std(column, cell)
        mean = _best(display.mean(column, cell), cell is not None and cell.is_best)
        append(line, element("td", mean, element("small", f" ±{spread}") if spread else None))
        if display.has_differences(table, index):
            append(line, _difference(column, cell))
    if table.superb_tasks:
        append(line, element("td", _best(display.superb_s(row), row.is_best_overall)))
    append(line, element("td", display.parameters(row)))
    if display.has_macs(table):
        append(line, element("td", display.macs(row)))
    append(line, element("td", display.seeds(row.cells)))
    return line


def _difference(column: Column, cell: Cell | None) -> Element:
    mark = f" {SIGNIFICANCE_MARK}" if cell is not None and cell.is_significant else ""
    interval = display.interval(column, cell)
    small = element("small", f"({interval})") if interval else None
    return element("td", display.difference(column, cell) + mark, element("br") if interval else None, small)


def _published(table: Table, row: PublishedRow) -> Element:
    source = element("sup", f"[{display.source_number(table, row)}]")
    line = element("tr", element("th", f"published: {row.label}", source, scope="row"), class_="published")
    for index, (column, value) in enumerate(zip(table.columns, row.values, strict=True)):
        append(line, element("td", display.published(column, value)))
        if display.has_differences(table, index):
            append(line, element("td"))
    for _ in _last_titles(table):
        append(line, element("td"))
    return line


def _best(text: str, is_best: bool) -> Element | str:
    return element("strong", text) if is_best else text
