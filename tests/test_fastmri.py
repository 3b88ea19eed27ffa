"""Files in fastMRI's layout: what is written is read back, and bad files end in one clear line."""

import h5py
import numpy as np
import pytest
import torch

from inverse.data import (
    Header,
    atomic_write,
    crop_image,
    crop_readout,
    equispaced,
    format_header,
    parse_header,
    read,
    sample_path,
    write,
)
from inverse.errors import InputError

HEADER = Header((32, 20, 1), (440.0, 280.0, 5.0), (16, 20, 1), (220.0, 280.0, 5.0), (2, 18))


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


def store(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return path


def test_round_trip(tmp_path):
    kspace, mask, reference = noise(3, 4, 32, 20), equispaced(20, 4), noise(3, 16, 20).abs()
    path = tmp_path / "scan.h5"
    affine = np.diag([14.0, 13.75, 5.0, 1.0])
    write(path, kspace, mask=mask, header=HEADER, reference=reference, attributes={"patient_id": "p"}, affine=affine)
    scan = read(path)
    assert torch.equal(scan.kspace, kspace * mask) and scan.kspace.dtype == torch.complex64
    assert torch.equal(scan.mask, mask) and scan.mask_from_file
    assert scan.header == HEADER and scan.voxel_mm == (5.0, 13.75, 14.0)
    assert torch.equal(scan.reference, reference) and scan.reference_kind == "rss"
    assert scan.attributes["patient_id"] == "p" and scan.attributes["max"] == float(reference.max())
    assert np.array_equal(scan.affine, affine)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("slices", "expected"), [(1, (1,)), (-1, (2,)), (slice(0, 2), (0, 1)), ([2, 0], (2, 0)), (None, (0, 1, 2))]
)
def test_chosen_slices(tmp_path, slices, expected):
    kspace = noise(3, 2, 8, 6)
    write(tmp_path / "scan.h5", kspace, reference=kspace.abs().sum(1))
    scan = read(tmp_path / "scan.h5", slices=slices)
    assert scan.slices == expected and scan.total_slices == 3
    assert torch.equal(scan.kspace, kspace[list(expected)])
    assert torch.equal(scan.reference, kspace.abs().sum(1)[list(expected)])


@pytest.mark.parametrize("slices", [3, -4, [], slice(5, 9)])
def test_slices_out_of_range(tmp_path, slices):
    write(tmp_path / "scan.h5", noise(3, 2, 8, 6))
    with pytest.raises(InputError, match="3 slices"):
        read(tmp_path / "scan.h5", slices=slices)


def test_single_coil_has_a_coil_axis(tmp_path):
    write(tmp_path / "scan.h5", noise(3, 8, 6), reference=torch.ones(3, 8, 6))
    scan = read(tmp_path / "scan.h5")
    assert scan.kspace.shape == (3, 1, 8, 6) and scan.reference_kind == "esc"


def test_one_slice_with_stated_axes(tmp_path):
    path = store(tmp_path / "scan.h5", kspace=noise(3, 8, 6).numpy())
    with h5py.File(path, "a") as file:
        file.attrs["axes"] = "(coil, y, x); zero frequency at index N // 2"
    assert read(path).kspace.shape == (1, 3, 8, 6)


def test_mask_from_zeros(tmp_path):
    kspace, mask = noise(2, 3, 16, 20), equispaced(20, 4)
    scan = read(store(tmp_path / "lines.h5", kspace=(kspace * mask).numpy()))
    assert torch.equal(scan.mask, mask) and not scan.mask_from_file
    pattern = torch.rand(16, 20, generator=torch.Generator().manual_seed(1)) > 0.7
    scan = read(store(tmp_path / "pattern.h5", kspace=(kspace * pattern).numpy()))
    assert torch.equal(scan.mask, pattern)


def test_header():
    assert parse_header(format_header(HEADER)) == HEADER
    assert parse_header(format_header(HEADER).encode()) == HEADER
    assert parse_header(format_header(HEADER).replace(' xmlns="http://www.ismrm.org/ISMRMRD"', "")) == HEADER
    assert parse_header("<a/>") is None and parse_header("no xml") is None and parse_header(b"") is None
    no_limits = format_header(HEADER).replace("kspace_encoding_step_1", "other")
    assert parse_header(no_limits) == Header(*(getattr(HEADER, n) for n in list(vars(HEADER))[:4]))


def test_padding_as_in_fastmri():
    # the numbers of fastMRI's own computation: left = size // 2 - center, right = left + maximum + 1
    text = format_header(HEADER)
    assert "<maximum>15</maximum><center>8</center>" in text
    assert parse_header(text).padding == (20 // 2 - 8, 20 // 2 - 8 + 15 + 1)


BAD = {
    "complex kspace": lambda p: store(p, kspace=np.zeros((2, 3, 4, 4), np.float32)),
    "slices, coils, y, x": lambda p: store(p, kspace=np.ones((4, 4), np.complex64)),
    "0, 3, 4, 4": lambda p: store(p, kspace=np.ones((0, 3, 4, 4), np.complex64)),
    "NaN or Inf in slice 1": lambda p: store(p, kspace=np.repeat([1, np.nan], 8).reshape(2, 1, 2, 4) + 0j),
    "NaN or Inf in slice 0": lambda p: store(p, kspace=np.full((1, 1, 2, 4), np.inf, np.complex64)),
    "kspace is all zero": lambda p: store(p, kspace=np.zeros((1, 1, 2, 4), np.complex64)),
    "mask is all zero": lambda p: store(p, kspace=np.ones((1, 1, 2, 4), np.complex64), mask=np.zeros(4)),
    "mask of shape": lambda p: store(p, kspace=np.ones((1, 1, 2, 4), np.complex64), mask=np.ones(5)),
    "dataset 'kspace', found other": lambda p: store(p, other=np.ones(3)),
    "reconstruction_rss of shape": lambda p: store(
        p, kspace=np.ones((1, 1, 2, 4), np.complex64), reconstruction_rss=np.ones((2, 2, 4))
    ),
    "not a readable HDF5 file": lambda p: p.write_bytes(b"not HDF5 at all"),
    "or truncated": lambda p: p.write_bytes(sample_path().read_bytes()[:200_000]),
    "no such file": lambda p: None,
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files(tmp_path, message):
    path = tmp_path / "scan.h5"
    BAD[message](path)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert "scan.h5" in str(error.value) and "\n" not in str(error.value)
    if path.exists():  # closed: it can be opened for writing at once
        path.open("ab").close()


def test_damaged_chunk(tmp_path):
    path = tmp_path / "scan.h5"
    write(path, noise(1, 1, 64, 64))
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        start = file["kspace"].id.get_chunk_info(0).byte_offset
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated"):
        read(path)


def test_missing_header_is_tolerated(tmp_path):
    path = store(tmp_path / "scan.h5", kspace=noise(1, 2, 8, 6).numpy(), ismrmrd_header="<broken")
    scan = read(path)
    assert scan.header is None and scan.voxel_mm is None and scan.reference is None


@pytest.mark.parametrize(("points", "size"), [(32, 16), (31, 16), (32, 15), (31, 15)])
def test_crop_readout_is_exact_in_image_space(points, size):
    kspace = noise(2, points, 6)

    def image(k):
        k = torch.fft.ifftshift(k, dim=(-2, -1))
        return torch.fft.fftshift(torch.fft.ifft2(k, norm="ortho"), dim=(-2, -1))

    cropped = crop_readout(kspace, size)
    assert cropped.shape == (2, size, 6)
    # float32 rounding of four transforms
    torch.testing.assert_close(image(cropped), crop_image(image(kspace), (size, 6)), atol=1e-5, rtol=1e-5)


def test_crop_readout_keeps_the_noise_level():
    cropped = crop_readout(noise(8, 128, 64), 64)
    # 32768 complex samples: the standard deviation scatters by 0.3 %
    assert abs(float(cropped.abs().square().mean()) - 1) < 0.02
    assert torch.equal(crop_readout(cropped, 64), cropped)
    with pytest.raises(InputError, match="never padded"):
        crop_readout(cropped, 65)
    with pytest.raises(InputError, match="at most"):
        crop_image(cropped, (65, 3))


def test_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "scan.h5"
    write(path, noise(1, 2, 8, 6))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write(path, noise(1, 2, 8, 6), attributes={"bad": object()})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "new.h5") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".h5"
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write(tmp_path / "missing" / "scan.h5", noise(1, 2, 8, 6))
    with pytest.raises(InputError, match="got a folder"):
        write(tmp_path, noise(1, 2, 8, 6))
    with pytest.raises(InputError, match="NaN"):
        write(tmp_path / "scan.h5", noise(1, 2, 8, 6) * float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_shipped_sample():
    scan = read(sample_path())
    assert scan.kspace.shape == (3, 8, 224, 184) and scan.mask.shape == (184,)
    assert bool((scan.kspace[..., ~scan.mask] == 0).all()) and scan.header.recon_size == (224, 184, 1)
    assert scan.reference.shape == (3, 224, 184) and scan.attributes["sigma_y"] == 0.012
    notice = sample_path().with_name("colin27_NOTICE.txt").read_text()
    assert "Louis Collins" in notice and "Louis Collins" in scan.attributes["notice"]
    assert sample_path().stat().st_size < 6 * 2**20
