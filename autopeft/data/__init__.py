"""Rows: found, read, checked and split."""
