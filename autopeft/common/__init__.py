"""What all packages share: errors, units, files, locks, seeds, and a plugin's code contained."""
