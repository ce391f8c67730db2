"""The report: one self-contained HTML file that a sceptical colleague can check."""
