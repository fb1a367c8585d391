"""What MLflow models name that were logged before the package had packages: they load through this module."""

from autopeft.winner.mlflow_model import _load_pyfunc

__all__ = ["_load_pyfunc"]
