"""NIfTI files: orientation, voxel sizes and values as another program reads them."""

import nibabel
import numpy as np
import pytest
import torch

from inverse.data import write_nifti
from inverse.errors import InputError


@pytest.mark.parametrize("name", ["volume.nii", "volume.nii.gz"])
def test_reload(tmp_path, name):
    volume = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(0))
    write_nifti(tmp_path / name, volume, voxel_mm=(3.0, 1.5, 1.0))
    image = nibabel.load(tmp_path / name)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == (1.0, 1.5, 3.0) and image.header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(image.get_fdata(dtype=np.float32), volume.numpy().transpose(2, 1, 0))
    assert np.allclose(image.affine @ [2, 3, 2, 1], [0, 0, 0, 1])  # the centre voxel is at 0 mm
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_affine_and_single_slice(tmp_path):
    affine = np.array([[-2.0, 0, 0, 10], [0, 0, 3.0, 20], [0, -1.0, 0, 30], [0, 0, 0, 1]])
    write_nifti(tmp_path / "a.nii", torch.ones(6, 5), affine=affine)
    image = nibabel.load(tmp_path / "a.nii")
    assert image.shape == (5, 6, 1) and np.allclose(image.affine, affine)
    assert nibabel.aff2axcodes(image.affine) == ("L", "I", "A") and int(image.header["sform_code"]) == 1


@pytest.mark.parametrize(
    ("message", "name", "volume", "options"),
    [
        ("real values", "a.nii", torch.ones(2, 2, 2, dtype=torch.complex64), {}),
        ("NaN", "a.nii", torch.full((2, 2, 2), float("nan")), {}),
        ("shape", "a.nii", torch.ones(2), {}),
        ("ending in", "a.png", torch.ones(2, 2, 2), {}),
        ("voxel_mm", "a.nii", torch.ones(2, 2, 2), {"voxel_mm": (1, 0, 1)}),
        ("voxel_mm", "a.nii", torch.ones(2, 2, 2), {"voxel_mm": (1, 1)}),
        ("affine", "a.nii", torch.ones(2, 2, 2), {"affine": np.zeros((4, 4))}),
        ("does not exist", "missing/a.nii", torch.ones(2, 2, 2), {}),
    ],
)
def test_refused(tmp_path, message, name, volume, options):
    with pytest.raises(InputError, match=message):
        write_nifti(tmp_path / name, volume, **options)
    assert list(tmp_path.iterdir()) == []
