"""Marks that autopeft puts on modules and parameters, under names that nothing else uses."""

from __future__ import annotations

FROZEN = "_autopeft_frozen"
"""Marks the modules of the base model, to distinguish them from a method's own."""


TRAINED = "_autopeft_trained"
"""Marks the parameters of an add-on, which belong to only one model."""


GROUPS = "_autopeft_groups"
"""Marks a model with an add-on; the value is the groups of parameters with their own training rates."""


LAYER = "_autopeft_layer"
"""Marks its transformer layers; the value is the layer's index, from the bottom."""


LINEAR = "_autopeft_linear"
"""Marks the layers' linear maps, which are the ones that may be quantized."""


ORIGINAL = "_autopeft_original"
"""Marks a quantized linear map; the value says where its weight is in the model's files."""
