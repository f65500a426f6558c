"""The writers, one module a format, and the pipeline that strings them together."""
