"""The report: one HTML file that a sceptical colleague can check."""
