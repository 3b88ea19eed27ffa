"""Coil compression: fewer virtual coils that keep the signal, and white noise white."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.data.fourier import centred_fft, centred_ifft
from inverse.errors import InputError, check_tensor


def compress_coils(
    kspace: Tensor, coils: int | None = None, *, energy: float = 0.95, readout: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mix the coils to fewer virtual ones, those of the largest singular values of the data.

    Without `readout` one matrix for all of k-space, from its principal components. With it geometric compression: a
    matrix for every position along the fully sampled readout, where each slab of the object sees its own few coils;
    neighbouring matrices are aligned, so that virtual sensitivities stay smooth. It keeps more with as many coils.

    Args:
        kspace: (coils, y, x) or (coils, z, y, x) complex, zeros where not sampled; with prewhitened coils the noise
            stays white and independent.
        coils: number of virtual coils; None: the fewest that keep `energy`.
        energy: part of the energy to keep, above 0, at most 1, default 0.95; noise counts as well.
        readout: axis of the readout, negative, e.g. -2; None: one matrix.

    Returns:
        k-space of the virtual coils, (virtual, *image), zeros where not sampled; and the matrices, (virtual, coils) or
        (readout, virtual, coils), with orthonormal rows. `apply_compression` takes maps to the virtual coils.

    Raises:
        InputError: wrong shape, numbers out of range, all zeros, or a readout that is not sampled as a whole.

    Reference: M. Buehrer et al., "Array compression for MRI with large coil arrays", MRM 57, 2007; T. Zhang et al.,
    "Coil compression for accelerated imaging with Cartesian sampling", MRM 69, 2013.
    """
    check_tensor("kspace", kspace, complex_=True)
    if kspace.ndim not in (3, 4) or kspace.numel() == 0:
        raise InputError(f"kspace: expected shape (coils, y, x) or (coils, z, y, x), got {tuple(kspace.shape)}.")
    if coils is not None and not 1 <= coils <= kspace.shape[0]:
        raise InputError(f"coils: expected 1 to {kspace.shape[0]} virtual coils, got {coils}; take fewer.")
    if not 0 < energy <= 1:
        raise InputError(f"energy: expected a part above 0 and up to 1, got {energy:g}.")
    if not bool((kspace != 0).any()):
        raise InputError("kspace: expected data, got all zeros; check the file.")
    if readout is None:
        powers, vectors = _principal(kspace.flatten(1)[None])
        matrix = vectors[0, : coils or _fewest(powers, energy)].contiguous()
        return apply_compression(kspace, matrix), matrix
    _check_readout(kspace, readout)
    hybrid = centred_ifft(kspace, readout)
    powers, vectors = _principal(hybrid.movedim(readout, 0).flatten(2))
    matrices = _aligned(vectors[:, : coils or _fewest(powers, energy)], int(powers.sum(1).argmax()))
    virtual = centred_fft(apply_compression(hybrid, matrices, readout=readout), readout)
    return virtual * (kspace != 0).any(0), matrices


def apply_compression(images: Tensor, matrix: Tensor, *, readout: int | None = None) -> Tensor:
    """Coil maps or coil images of the virtual coils.

    Args:
        images: (*batch, coils, *image), e.g. coil maps; k-space only with one matrix.
        matrix: from `compress_coils`, (virtual, coils) or (readout, virtual, coils).
        readout: the axis that `compress_coils` was given.

    Returns:
        (*batch, virtual, *image).

    Raises:
        InputError: shapes that do not fit.

    Notes:
        The sum of squares of compressed maps is less than 1 where coils were left out; maps estimated from the
        compressed k-space are normalised again.
    """
    check_tensor("images", images, complex_=True)
    if (readout is None) != (matrix.ndim == 2) or matrix.ndim not in (2, 3):
        raise InputError(
            f"matrix: expected (virtual, coils), or with readout= (readout, virtual, coils), got {tuple(matrix.shape)}."
        )
    axes = 3 if images.ndim > 3 and images.shape[-4] == matrix.shape[-1] else 2
    if images.ndim <= axes or images.shape[-1 - axes] != matrix.shape[-1]:
        raise InputError(
            f"images: expected {matrix.shape[-1]} coils in front of the image, got {tuple(images.shape)}; give maps of "
            "the coils that were compressed."
        )
    matrix = matrix.to(images.dtype)
    if readout is None:
        return torch.tensordot(images.movedim(-1 - axes, -1), matrix, ([-1], [1])).movedim(-1, -1 - axes).contiguous()
    _check_axis(readout, axes)
    if images.shape[readout] != matrix.shape[0]:
        raise InputError(
            f"images: expected {matrix.shape[0]} positions along axis {readout}, got {images.shape[readout]}; compress "
            "after cropping the readout."
        )
    rows = images.movedim((-1 - axes, readout), (0, 1)).transpose(0, 1)
    mixed = torch.matmul(matrix, rows.flatten(2)).reshape(len(rows), matrix.shape[1], *rows.shape[2:])
    return mixed.transpose(0, 1).movedim((0, 1), (-1 - axes, readout)).contiguous()


def _principal(data: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (positions, coils), largest first, and directions (positions, coils, coils) of data (..., coils, n)."""
    # squaring halves the digits: in double
    data = data.to(torch.complex128)
    powers, columns = torch.linalg.eigh(data @ data.mH)
    return powers.flip(-1).clamp_min(0), columns.flip(-1).mH


def _fewest(powers: Tensor, energy: float) -> int:
    """Fewest virtual coils that keep a part of the energy, over all positions together."""
    kept = powers.sum(0).cumsum(0)
    # rounding: all of the energy is kept by the coils that hold all but 1e-12 of it
    return int((kept < (energy - 1e-12) * kept[-1]).sum()) + 1


def _aligned(matrices: Tensor, start: int) -> Tensor:
    """Each matrix turned by the unitary that brings it closest to its neighbour's, outwards from `start`."""
    aligned = list(matrices.unbind(0))
    count = len(aligned)
    for order in (range(start + 1, count), range(start - 1, -1, -1)):
        for i in order:
            before = aligned[i - 1] if i > start else aligned[i + 1]
            u, _, vh = torch.linalg.svd(before @ aligned[i].mH)
            aligned[i] = (u @ vh) @ aligned[i]
    return torch.stack(aligned)


def _check_axis(readout: int, axes: int) -> None:
    if not -axes <= readout <= -1:
        raise InputError(f"readout: expected an axis of the image, {-axes} to -1, got {readout}.")


def _check_readout(kspace: Tensor, readout: int) -> None:
    """The readout of every sampled line must be whole: compression mixes its samples."""
    _check_axis(readout, kspace.ndim - 1)
    sampled = (kspace != 0).any(0)
    if bool((sampled != sampled.any(readout, keepdim=True)).any()):
        raise InputError(
            f"kspace: expected whole lines along readout={readout}, got lines sampled in part; choose the axis that is "
            "fully sampled, or readout=None."
        )
