"""What a result depends on besides the study file: versions and hardware, but nothing that identifies a machine."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("autopeft", "torch", "transformers", "peft", "optuna", "mlflow", "datasets", "scikit-learn", "numpy")


def describe() -> dict[str, object]:
    """Python, platform, package versions and the device, without paths, host names or environment variables."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
