"""The base model: checked, loaded, described, and with an add-on put on."""
