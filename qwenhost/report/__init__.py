"""A comparison shown: terminal, one self-contained HTML page; computes nothing new."""

from qwenhost.report.advice import advice_parts
from qwenhost.report.csv_files import csv_tables
from qwenhost.report.page import html
from qwenhost.report.terminal import quote_table, side_by_side, terminal

__all__ = ["advice_parts", "csv_tables", "html", "quote_table", "side_by_side", "terminal"]
