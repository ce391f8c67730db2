"""The report's figures, side by side or each as its own SVG."""
