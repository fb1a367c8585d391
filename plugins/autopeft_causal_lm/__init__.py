"""Language models that learn to write: rows of conversations, of prompts with their answers, or of texts."""
