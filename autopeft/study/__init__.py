"""A study as it is kept: its file, its records, its folder."""
