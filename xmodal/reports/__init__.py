"""Run folders → tables, plots and one page."""
