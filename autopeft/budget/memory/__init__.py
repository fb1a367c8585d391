"""Peak memory of a training step: predicted on fake tensors, and measured on real ones."""
