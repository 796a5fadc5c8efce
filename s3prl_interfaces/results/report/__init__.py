"""One self-contained page about many runs: the table, learning curves, and what each interface looks at.

``write_report(["result/downstream"], "report.html")``. Drawing needs Matplotlib, the extra ``report``; it is imported
when a report is written, not before.
"""

from s3prl_interfaces.results.report.write import write_report

__all__ = ["write_report"]
