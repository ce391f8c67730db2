"""The studies of the project: one short file a question."""
