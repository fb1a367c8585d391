"""How a model is fine-tuned: the contract of a method, its search space, candidates, discovery."""
