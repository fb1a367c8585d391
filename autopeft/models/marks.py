"""Marks that autopeft puts on modules and parameters, under names that nothing else has."""

from __future__ import annotations

FROZEN = "_autopeft_frozen"
"""Marks the modules of the base model, which a method's own modules then stand beside."""


TRAINED = "_autopeft_trained"
"""Marks the parameters of an add-on, which belong to one model alone."""


GROUPS = "_autopeft_groups"
"""Marks a model with an add-on on; the value is the groups of parameters that are trained at rates of their own."""


LAYER = "_autopeft_layer"
"""Marks its transformer layers; the value is the layer's index, from the bottom."""


LINEAR = "_autopeft_linear"
"""Marks their linear maps, which are those that may be quantized."""


ORIGINAL = "_autopeft_original"
"""Marks a quantized linear map; the value says where its weight is in the files of the model."""
