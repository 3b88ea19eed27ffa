"""Figures and tables: equal panels, the right way up, no state left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inverse.errors import InputError
from inverse.plot import Panel, panels, save_figure
from inverse.report import facts, table


def items(count: int, shape: tuple[int, int] = (40, 30)) -> list[Panel]:
    image = torch.zeros(shape)
    image[:10] = 1.0
    return [Panel(f"panel {k}", image, "30.0 dB", error_bar=k == count - 1) for k in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (32, 32)])
def test_panels_are_equal_and_keep_their_shape(count: int, shape: tuple[int, int]) -> None:
    figure = panels(items(count, shape))
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in figure.axes]
    sizes = {(round(b.width * width, 6), round(b.height * height, 6)) for b in boxes}
    assert len(boxes) == count
    assert len(sizes) == 1
    (size,) = sizes
    assert size[1] / size[0] == pytest.approx(shape[0] / shape[1], rel=1e-4)
    assert min(min(b.x0, b.y0) for b in boxes) >= 0
    assert max(max(b.x1, b.y1) for b in boxes) <= 1


def test_first_row_is_at_the_bottom(tmp_path: Path) -> None:
    from matplotlib.image import imread

    save_figure(panels(items(2)[:1], window=(0.0, 1.0)), tmp_path / "a.png")
    pixels = imread(tmp_path / "a.png")[..., 0]
    middle = pixels[:, pixels.shape[1] // 2]
    assert middle[-20] > 0.9  # bright rows 0 to 9
    assert middle[len(middle) // 2] < 0.1


def test_grey_panels_share_their_scale() -> None:
    figure = panels([Panel("a", torch.ones(4, 4)), Panel("b", 2 * torch.ones(4, 4, dtype=torch.complex64))])
    limits = {axes.images[0].get_clim() for axes in figure.axes}
    assert limits == {(0.0, 2.0)}


def test_zero_error_bar_and_zero_image_are_drawn(tmp_path: Path) -> None:
    figure = panels([Panel("a", torch.zeros(4, 4)), Panel("b", torch.zeros(4, 4), error_bar=True)])
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_pyplot_is_not_touched() -> None:
    before = "matplotlib.pyplot" in sys.modules
    panels(items(2))
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_bad_panels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shape"):
        panels([])
    with pytest.raises(InputError, match="shape"):
        panels([Panel("a", torch.zeros(4, 4)), Panel("b", torch.zeros(4, 5))])
    with pytest.raises(InputError, match="does not exist"):
        save_figure(panels(items(1)), tmp_path / "no" / "a.png")


def test_table_and_facts() -> None:
    text = table(("name", "value"), [("a", "1.0"), ("longer", "10.0")]).splitlines()
    assert text == ["name    value", "-------------", "a         1.0", "longer   10.0"]
    lines = facts([("Label", "word " * 60), ("Empty", "")]).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("Label       word")
    assert all(line.startswith("            word") for line in lines[1:])


def test_images_are_not_changed() -> None:
    image = torch.rand(4, 4)
    copy = image.clone()
    panels([Panel("a", image)])
    assert np.array_equal(image, copy)
