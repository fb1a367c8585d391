"""A winner: saved, loaded, asked for predictions, exported."""
