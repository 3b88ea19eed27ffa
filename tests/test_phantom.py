"""Phantoms: image and k-space against integrals done by hand, by sums, and another library's picture."""

import math

import pytest
import torch

from inverse.data.phantom import Ellipse, EllipsePhantom, shepp_logan
from inverse.data.trajectories import cartesian
from inverse.errors import InputError
from inverse.linalg import norm


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def test_kspace_at_the_origin_is_the_area():
    ellipse = Ellipse((0.1, -0.2), (0.2, 0.1), angle=0.4, value=3 - 1j)
    value = EllipsePhantom([ellipse]).kspace(torch.zeros(1, 2), (20, 30), dtype=torch.complex128)
    # N^(1/2) times the integral over the field of view.
    assert complex(value) == pytest.approx((3 - 1j) * math.pi * 0.2 * 0.1 * math.sqrt(600), abs=1e-12)
    ball = EllipsePhantom([Ellipse((0.0, 0.1, 0.0), (0.3, 0.2, 0.1))])
    value = ball.kspace(torch.zeros(1, 3), (4, 5, 6), dtype=torch.complex128)
    assert complex(value) == pytest.approx(4 / 3 * math.pi * 0.3 * 0.2 * 0.1 * math.sqrt(120), abs=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_kspace_is_the_integral(dims):
    """Turned, off the centre, complex: against a fine sum over points."""
    centre, axes = ((0.02, 0.1, -0.15), (0.11, 0.22, 0.13))
    phantom = EllipsePhantom([Ellipse(centre[-dims:], axes[-dims:], angle=0.6, value=1 + 2j)])
    shape = (9, 8, 7)[-dims:]
    k = torch.rand(40, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    found = phantom.kspace(k, shape, dtype=torch.complex128)
    fine = 1000 if dims == 2 else 90
    image = phantom.image((fine,) * dims, dtype=torch.complex128).flatten()
    u = (torch.arange(fine, dtype=torch.float64) - fine // 2) / fine
    points = torch.cartesian_prod(*[u] * dims)[image != 0]
    angle = -(k * torch.tensor(shape)) @ points.mT
    expected = torch.polar(torch.ones_like(angle), angle).to(torch.complex128) @ image[image != 0]
    # A sum over points counts a region to about a point of its edge in 1000 (90).
    assert relative(found, math.sqrt(math.prod(shape)) * expected / fine**dims) < (1e-3 if dims == 2 else 5e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_kspace_is_smooth_where_the_series_takes_over(dims):
    ellipse = Ellipse((0.0,) * dims, (0.5,) * dims)
    q = torch.zeros(2, dims, dtype=torch.float64)
    q[:, 0] = torch.tensor([0.01 - 1e-9, 0.01 + 1e-9]) / 0.5
    below, above = ellipse.transform(q)
    assert abs(complex(below - above)) < 1e-10 * abs(complex(above))


def test_image_counts_pixels_from_the_centre():
    # One pixel: the image of a small disc at an offset of whole pixels, y down and x to the right.
    image = EllipsePhantom([Ellipse((2 / 8, -1 / 6), (0.05, 0.05))]).image((8, 6), dtype=torch.float32)
    assert image.nonzero().tolist() == [[8 // 2 + 2, 6 // 2 - 1]]
    odd = EllipsePhantom([Ellipse((0.0, 0.0), (0.05, 0.05))]).image((7, 9), dtype=torch.float32)
    assert odd.nonzero().tolist() == [[3, 4]]
    # A long ellipse along x, turned towards y: down to the right.
    turned = EllipsePhantom([Ellipse((0.0, 0.0), (0.02, 0.45), angle=math.pi / 4)]).image((32, 32), dtype=torch.float32)
    assert turned[16 + 8, 16 + 8] == 1 and turned[16 - 8, 16 + 8] == 0


def test_pixel_means_have_the_area():
    phantom = EllipsePhantom([Ellipse((0.013, 0.02), (0.31, 0.22), angle=0.3, value=2.0)])
    image = phantom.image((32, 33), supersample=8, dtype=torch.float64)
    # Points of an eighth of a pixel: area to about 1e-3.
    assert float(image.mean()) == pytest.approx(2 * math.pi * 0.31 * 0.22, rel=1e-3)
    assert 0 < float(image[(image > 0) & (image < 2)].mean()) < 2


def test_shepp_logan_is_the_picture_everyone_knows():
    data = pytest.importorskip("skimage.data")
    expected = torch.from_numpy(data.shepp_logan_phantom())
    image = shepp_logan().image((400, 400), supersample=2, dtype=torch.float64)
    # Theirs is stored in 8 bits, and edges differ; mirrored, 15 % of the pixels would differ.
    assert float(((image - expected).abs() > 0.05).double().mean()) < 0.03
    assert float(image.max()) == pytest.approx(1) and float(image.min()) == pytest.approx(0, abs=1e-7)


def test_shepp_logan_of_three_dimensions():
    volume = shepp_logan(3).image((9, 40, 40), dtype=torch.float64)
    flat = shepp_logan().image((40, 40), dtype=torch.float64)
    # The plane through the centre cuts the skull, the brain and the ventricles.
    assert float((volume[4] - flat).abs().gt(0.05).double().mean()) < 0.1
    assert float((volume[4].bool() == flat.bool()).double().mean()) > 0.99 and not volume[0].any()


def test_low_frequencies_are_those_of_the_image():
    shape = (64, 64)
    k = cartesian(shape)
    near = k.norm(dim=-1) < 0.3
    image = shepp_logan().image(shape, supersample=8, dtype=torch.complex128)
    fourier = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image), norm="ortho"))
    found = shepp_logan().kspace(k[near], shape, dtype=torch.complex128)
    assert relative(fourier[near], found) < 5e-3  # means over pixels lower k = 0.3 by 0.4 % (a sinc)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EllipsePhantom([]), "2 or all of 3"),
        (lambda: EllipsePhantom([Ellipse((0, 0), (1, 1, 1))]), "2 or all of 3"),
        (lambda: EllipsePhantom([Ellipse((0, 0), (1, 0))]), "positive"),
        (lambda: shepp_logan(4), "dims"),
        (lambda: shepp_logan().image((4, 4, 4)), "2 numbers"),
        (lambda: shepp_logan().image((4, 4), supersample=0), "supersample"),
        (lambda: shepp_logan().kspace(torch.zeros(3, 3), (4, 4)), "samples, 2"),
        (lambda: shepp_logan().kspace(torch.zeros(3, 2) + 0j, (4, 4)), "real"),
    ],
)
def test_bad_input_is_one_line(build, message):
    with pytest.raises(InputError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
