"""Reports: run folders as tables, plots and one HTML page."""

from xmodal.reports.intervals import interval, paired
from xmodal.reports.page import write_page
from xmodal.reports.read import RunFiles, read_run
from xmodal.reports.summary import summarise
from xmodal.reports.tables import comparison_table, plain_table
from xmodal.reports.verdicts import verdict

__all__ = [
    "RunFiles",
    "comparison_table",
    "interval",
    "paired",
    "plain_table",
    "read_run",
    "summarise",
    "verdict",
    "write_page",
]
