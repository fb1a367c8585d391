"""Limits, what a candidate needs of them, and the watches that hold a trial to them."""
