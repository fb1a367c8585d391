"""Fine-tuning methods: their contract, their search spaces, candidates, and how they are found."""

from autopeft.common.surface import surface

SURFACE = {
    "CONTRACT": "contract",
    "Candidate": "candidate",
    "CandidateSpace": "candidate",
    "Categorical": "dimensions",
    "Float": "dimensions",
    "Hyperparameters": "training_space",
    "Integer": "dimensions",
    "LinearModule": "contract",
    "ModelSpec": "contract",
    "PeftMethod": "contract",
    "Registry": "registry",
    "SearchSpace": "search_space",
    "Support": "contract",
    "TargetGroups": "targets",
    "TrainingCallback": "callback",
    "discover": "registry",
    "layer_groups": "layers",
}
"""The package's public names, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)
