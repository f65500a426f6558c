"""A live picture: from a source's frame to a label, measured. Runs on boards."""
