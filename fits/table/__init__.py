"""Anyone's runs: opened, read under the table's names, reduced to the points a law is fitted to."""
