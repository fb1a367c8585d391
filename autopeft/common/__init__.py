"""Shared by all packages: errors, units, files, locks, seeds, guarded calls. Its modules are imported by name."""
