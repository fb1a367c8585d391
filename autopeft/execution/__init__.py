"""A trial is run: here or in a worker, contained, and with its outcome told."""
