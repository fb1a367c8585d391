"""The base model: check it, load it, describe it, and attach an add-on."""

from autopeft.common.surface import surface

SURFACE = {
    "BaseModel": "base",
    "Device": "device",
    "RowTokenizer": "row_tokenizer",
    "load_base": "load",
    "merged": "attach",
    "read_weights": "weights_file",
    "train_mode": "modes",
    "trainable": "attach",
    "write_weights": "weights_file",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)
