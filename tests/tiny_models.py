"""The tiny models of `autopeft.testing`, which the host's own tests run on too."""

from autopeft.testing.tiny import FAMILIES, PAD, VOCABULARY, batch, learnable_rows, tiny, tiny_base

__all__ = ["FAMILIES", "PAD", "VOCABULARY", "batch", "learnable_rows", "tiny", "tiny_base"]
