"""Settings shared by all tests; nothing here changes numbers."""

import os

import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")  # figures are drawn without a display


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
