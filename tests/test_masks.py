"""Masks: fastMRI's bit for bit, our own as stated."""

import importlib.util
from pathlib import Path

import pytest
import torch

from inverse.data import acceleration, equispaced, fastmri_mask, gaussian_lines, poisson_disc, random_lines
from inverse.errors import InputError


def subsample():
    """fastMRI's module of masks, loaded by its path: the package itself wants pytorch_lightning."""
    package = importlib.util.find_spec("fastmri")
    if package is None:
        pytest.skip("fastmri is not installed")
    path = Path(package.submodule_search_locations[0]) / "data" / "subsample.py"
    spec = importlib.util.spec_from_file_location("fastmri_subsample", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["random", "equispaced", "equispaced_fraction"])
@pytest.mark.parametrize("lines", [184, 320, 368, 15 * 23])
def test_masks_of_fastmri(kind, lines):
    theirs = subsample()
    for fractions, factors in (([0.08], [4]), ([0.04], [8]), ([0.08, 0.04], [4, 8])):
        for seed in (0, 7, 123456, "file1000000.h5"):
            codes = tuple(map(ord, seed)) if isinstance(seed, str) else seed
            function = theirs.create_mask_for_mask_type(kind, fractions, factors)
            expected, _ = function((1, lines, 2), seed=codes)
            assert torch.equal(fastmri_mask(kind, lines, fractions, factors, seed=seed), expected[0, :, 0].bool())
            if kind != "random":
                expected, _ = function((1, lines, 2), offset=1, seed=codes)
                ours = fastmri_mask(kind, lines, fractions, factors, seed=codes, offset=1)
                assert torch.equal(ours, expected[0, :, 0].bool())


def test_equispaced():
    mask = equispaced(184, 4, center_fraction=0.08)
    assert mask.dtype == torch.bool and bool(mask[92]) and bool(mask[::4].all())
    assert int(mask[92 - 7 : 92 + 8].sum()) == 15  # round(0.08 * 184) lines
    assert torch.equal(equispaced(20, 4, center_fraction=0, offset=3).nonzero().flatten(), torch.arange(3, 20, 4))
    assert acceleration(equispaced(20, 4, center_fraction=0)) == 4
    assert bool(equispaced(16, 1).all())


@pytest.mark.parametrize("make", [random_lines, gaussian_lines])
def test_drawn_lines(make):
    mask = make(200, 5, center_fraction=0.1, seed=3)
    assert int(mask.sum()) == 40 and bool(mask[90:110].all())
    assert torch.equal(mask, make(200, 5, center_fraction=0.1, seed=3))
    assert not torch.equal(mask, make(200, 5, center_fraction=0.1, seed=4))


def test_gaussian_lines_are_denser_inside():
    masks = torch.stack([gaussian_lines(200, 5, center_fraction=0.0, width=0.15, seed=s) for s in range(20)]).float()
    # the inner half holds nearly all of a Gaussian of 0.15
    assert masks[:, 50:150].sum() > 5 * (masks[:, :50].sum() + masks[:, 150:].sum())


@pytest.mark.parametrize("shape", [(64, 48), (63, 49)])
def test_poisson_disc(shape):
    mask = poisson_disc(shape, 4, calibration=(12, 10), seed=1)
    assert mask.dtype == torch.bool and mask.shape == shape
    y, x = shape[0] // 2 - 6, shape[1] // 2 - 5
    assert bool(mask[y : y + 12, x : x + 10].all())
    assert abs(acceleration(mask) - 4) < 0.7  # the widest tolerance, 15 %, and a line of the centre block
    assert torch.equal(mask, poisson_disc(shape, 4, calibration=(12, 10), seed=1))


@pytest.mark.parametrize(
    "call",
    [
        lambda: acceleration(torch.zeros(5)),
        lambda: equispaced(1, 1),
        lambda: equispaced(20, 0),
        lambda: equispaced(20, 21),
        lambda: equispaced(20, 2.5),
        lambda: equispaced(20, 4, offset=4),
        lambda: equispaced(20, 4, center_fraction=1.5),
        lambda: equispaced(20, float("nan")),
        lambda: random_lines(20, 10, center_fraction=0.5),
        lambda: gaussian_lines(20, 2, width=0),
        lambda: poisson_disc((64, 48), 1),
        lambda: poisson_disc((64,), 4),
        lambda: poisson_disc((64, 48), 4, calibration=50),
        lambda: poisson_disc((64, 48), 4, calibration=(4, 4, 4)),
        lambda: fastmri_mask("spiral", 20),
        lambda: fastmri_mask("random", 20, [0.1, 0.2], [4]),
        lambda: fastmri_mask("equispaced_fraction", 20, 0.5, 4, seed=0),
    ],
)
def test_silly_arguments(call):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
