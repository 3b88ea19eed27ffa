"""Masks for inpainting, colour to grey, kernels of blur, and decompositions of all imaging operators."""

import math

import numpy as np
import pytest
import torch
from cases_imaging import CASES, randn
from checks import check_one_line
from PIL import Image
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import Mask
from inverse.operators.colour import Grey
from inverse.operators.kernels import gaussian_kernel, load_kernel, motion_kernel, shake_kernel, uniform_kernel

EXACT = 1e-12  # double precision, sums of up to a few hundred terms


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


@pytest.mark.parametrize("name", CASES)
def test_factors_of_the_svd_have_orthonormal_columns(name):
    operator = CASES[name]()
    svd = operator.svd
    if svd is None:
        assert "blur" in name or "kernel" in name  # of kernels that are not separable
        return
    c = randn(2, *svd.Vh(randn(*operator.in_shape, dtype=operator.in_dtype)).shape, dtype=operator.in_dtype)
    for there, back in ((svd.U, svd.Uh), (svd.V, svd.Vh)):
        assert relative(back(there(c)), c) < EXACT
        assert relative(norm(there(c), 1), norm(c, 1)) < EXACT
    assert not svd.s.is_complex() and bool((svd.s >= 0).all())
    assert abs(float(svd.s.max()) - operator.norm()) <= 1e-4 * operator.norm()


def test_each_item_of_a_batch_may_have_its_own_mask():
    masks = torch.tensor([[[1, 0], [1, 1]], [[0, 1], [0, 0]], [[1, 1], [1, 1]]])
    operator = Mask(masks, dtype=torch.float64)
    x = randn(3, 2, 2)
    assert operator.in_shape == (3, 2, 2) and torch.equal(operator(x), masks * x)
    for i in range(3):
        assert torch.equal(operator(x)[i], Mask(masks[i], dtype=torch.float64)(x[i]))
    # Shared by the channels of an item, and samples of the whole are a batch.
    channels = Mask(masks[:, None], (3, 4, 2, 2), dtype=torch.float64)
    z = randn(5, 3, 4, 2, 2)
    assert torch.equal(channels(z), masks[:, None] * z) and channels.measurements == 4 * int(masks.sum())


def test_grey_has_the_weights_of_bt601():
    x = torch.zeros(3, 2, 2, dtype=torch.float64)
    for channel, expected in enumerate((0.299, 0.587, 0.114)):
        x.zero_()
        x[channel] = 1
        assert Grey((3, 2, 2), dtype=torch.float64)(x).tolist() == [[expected] * 2] * 2
    x = randn(5, 3, 4, 6)
    kept = Grey((3, 4, 6), keep_channel=True, dtype=torch.float64)(x)
    assert kept.shape == (5, 1, 4, 6) and torch.equal(kept[:, 0], Grey((3, 4, 6), dtype=torch.float64)(x))
    assert relative(Grey((3, 4, 6), "mean", dtype=torch.float64)(x), x.mean(1)) < EXACT


def test_grey_is_pil():
    x = (255 * torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(0))).byte()
    expected = torch.from_numpy(np.array(Image.fromarray(x.numpy()).convert("L")))
    # PIL rounds to whole numbers.
    assert (Grey((3, 6, 5))(x.movedim(-1, 0).float()) - expected).abs().max() < 0.51


def test_pinv_of_grey_is_of_least_energy():
    operator, x = Grey((3, 4, 6), dtype=torch.float64), randn(3, 4, 6)
    back = operator.pinv(operator(x))
    assert relative(operator(back), operator(x)) < EXACT
    assert abs(float((back * (x - back)).sum())) < EXACT * float((x * x).sum())  # what is missing is orthogonal
    assert operator.norm() == math.sqrt(0.299**2 + 0.587**2 + 0.114**2)


def moments(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (y, x) from the anchor, and covariance."""
    grid = torch.meshgrid(*(torch.arange(n) - n // 2 for n in kernel.shape), indexing="ij")
    places = torch.stack(grid).double().flatten(1)
    mean = places @ kernel.double().flatten()
    return mean, (places - mean[:, None]) * kernel.double().flatten() @ (places - mean[:, None]).mT


def test_gaussian_kernel_has_its_moments():
    mean, covariance = moments(gaussian_kernel((2.0, 3.0), dtype=torch.float64))
    # 4 standard deviations to each side: the tails hold 4 (phi(4) + ...) = 1e-3 of the variance.
    assert mean.abs().max() < EXACT and relative(covariance, torch.diag(torch.tensor([4.0, 9.0]).double())) < 2e-3
    angle = 0.4
    turned = gaussian_kernel((1.5, 3.0), 41, angle=angle, dtype=torch.float64)
    axis = torch.tensor([math.sin(angle), math.cos(angle)]).double()  # the long one, (y, x)
    assert relative(moments(turned)[1] @ axis, 9 * axis) < 1e-8
    for size in (4, (5, 8)):  # an even size keeps the maximum at the anchor
        kernel = gaussian_kernel(1.0, size)
        assert divmod(int(kernel.argmax()), kernel.shape[1]) == (kernel.shape[0] // 2, kernel.shape[1] // 2)
    assert gaussian_kernel(1.0).shape == (9, 9) and abs(float(gaussian_kernel(1.0).sum()) - 1) < 1e-6


def test_uniform_kernel():
    assert uniform_kernel((2, 4)).tolist() == [[0.125] * 4] * 2 and uniform_kernel(3).shape == (3, 3)


def test_motion_kernel_is_a_line():
    assert relative(motion_kernel(5), torch.full((1, 5), 0.2).expand(5, 5) * torch.eye(5)[2][:, None]) < 1e-6
    assert torch.equal(motion_kernel(5, math.pi / 2), motion_kernel(5).T) and motion_kernel(1).tolist() == [[1.0]]
    assert motion_kernel(0.3, 1.0).tolist() == [[1.0]]
    for length, angle in ((7.0, 0.4), (12.3, 2.0), (30.0, -1.1)):
        kernel = motion_kernel(length, angle, dtype=torch.float64)
        mean, covariance = moments(kernel)
        direction = torch.tensor([-math.sin(angle), math.cos(angle)]).double()  # y points down
        assert mean.abs().max() < 1e-9 and abs(float(kernel.sum()) - 1) < EXACT
        # A uniform line has the variance L^2 / 12; moving each piece to the middle of its pixel changes it by less than
        # the pixel's own size times that of the line.
        assert abs(float(direction @ covariance @ direction) - length**2 / 12) < length / 4
        across = torch.tensor([direction[1], -direction[0]]).double()
        assert float(across @ covariance @ across) < 0.25


def test_shake_kernel_is_random_and_repeatable():
    def draw(seed: int, **options) -> Tensor:
        return shake_kernel(21, torch.Generator().manual_seed(seed), **options)

    first = draw(0)
    assert torch.equal(first, draw(0)) and not torch.equal(first, draw(1))
    for kernel in (first, draw(1), shake_kernel(20, torch.Generator().manual_seed(2))):
        assert abs(float(kernel.sum()) - 1) < 1e-6 and float(kernel.min()) >= 0
        rows, columns = kernel.sum(1) > 0, kernel.sum(0) > 0
        # A path without gaps, that fills the kernel along one axis.
        assert bool(rows.all()) or bool(columns.all())
        first_row, last_row = rows.nonzero()[[0, -1]].flatten().tolist()
        assert bool(rows[first_row : last_row + 1].all())
    straight = moments(draw(3, jitter=0.0).double())[1]
    assert float(torch.linalg.eigvalsh(straight)[0]) < 0.25  # a line of one pixel
    state = torch.get_rng_state()
    draw(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert shake_kernel(1).tolist() == [[1.0]]


def test_kernels_from_files(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "kernel.npy", values)
    assert relative(load_kernel(tmp_path / "kernel.npy", dtype=torch.float64), torch.from_numpy(values / 66)) < EXACT
    for name, kind in (("kernel.png", np.uint8), ("deep.png", np.uint16), ("kernel.tif", np.float32)):
        Image.fromarray(values.astype(kind)).save(tmp_path / name)
        assert relative(load_kernel(str(tmp_path / name)), torch.from_numpy(values / 66).float()) < 1e-6
    Image.new("RGB", (4, 3)).save(tmp_path / "colour.png")
    check_one_line(lambda: load_kernel(tmp_path / "colour.png"), "grey", "RGB")


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a.npy", np.ones((2, 2, 3)), ["(2, 2, 3)", "one real plane"]),
        ("a.npy", np.ones((2, 2), complex), ["complex128"]),
        ("a.npy", np.zeros((2, 2)), ["sum of 0"]),
        ("a.npy", np.array([[1.0, -0.1]]), ["at least 0"]),
        ("a.npy", np.array([[1.0, math.nan]]), ["finite"]),
        ("a.npy", np.ones((0, 2)), ["(0, 2)"]),
        ("a.npy", None, ["cannot be read"]),
        ("a.png", None, ["cannot be read"]),
        ("a.txt", None, ["cannot be read"]),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, values, words):
    path = tmp_path / name
    if values is None:
        path.write_text("not an image")
    else:
        np.save(path, values)
    check_one_line(lambda: load_kernel(path), name, *words)
    check_one_line(lambda: load_kernel(tmp_path / "missing.npy"), "no such file")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: gaussian_kernel(0), ["sigma", "positive"]),
        (lambda: gaussian_kernel((1.0, -1.0)), ["sigma", "-1"]),
        (lambda: gaussian_kernel((1.0, 2.0, 3.0)), ["sigma", "3"]),
        (lambda: gaussian_kernel(1.0, 2.5), ["size", "2.5"]),
        (lambda: gaussian_kernel(1.0, 0), ["size", "0"]),
        (lambda: uniform_kernel(-1), ["size", "-1"]),
        (lambda: motion_kernel(0.0), ["length"]),
        (lambda: motion_kernel(math.nan), ["length"]),
        (lambda: shake_kernel(2.5), ["size", "2.5"]),
        (lambda: shake_kernel(9, jitter=-1.0), ["jitter"]),
        (lambda: shake_kernel(9, steps=0), ["steps"]),
        (lambda: Grey((4, 5)), ["channels", "(4, 5)"]),
        (lambda: Grey((4, 5, 6)), ["weights", "4"]),
        (lambda: Grey((3, 5, 6), "rec709"), ["weights", "luma", "'rec709'"]),
        (lambda: Grey((3, 5, 6), (0, 0, 0)), ["weights", "not all 0"]),
        (lambda: Grey((3, 5, 6), (1, math.inf, 0)), ["weights", "finite"]),
        (lambda: Grey((3, 5, 6), dtype=torch.bfloat16), ["bfloat16"]),
    ],
)
def test_bad_construction_is_one_line(build, words):
    check_one_line(build, *words)
