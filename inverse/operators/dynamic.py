"""Cartesian MRI frame by frame: time series, or slices that each have a mask of their own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inverse.errors import InputError
from inverse.operators.coils import check_maps
from inverse.operators.mri import MultiCoilMRI, one_coil


class DynamicMRI(MultiCoilMRI):
    """A series of scans as one operator, y_t = M_t F S_t x_t: every frame its own mask, maps shared or its own.

    Frames are points in time (dynamic MRI), or the slices of a stack with per-slice masks and maps. All frames go
    through the transforms together; line masks take one 1-D transform per axis that any frame undersamples.

    Args:
        maps: complex sensitivities for all frames, (coils, y, x), or one set for each, (frames, coils, y, x); with
            `sets` an axis of sets in front of coils; volumes have z in front of y. None: one coil that sees everything
            alike, complex64.
        masks: zeros and ones or bool, first axis frames: (frames, x) for phase-encoding lines, (frames, y, x); for
            volumes (frames, z, y, x) with axes of length 1 where all is sampled.
        shape: shape (y, x) or (z, y, x) of a frame, needed only with maps=None and lines.
        sets: whether maps have several sets; x is then (frames, sets, *image).

    Raises:
        InputError: a frame without samples, maps for another number of frames, or what `MultiCoilMRI` refuses.

    Notes:
        x (*batch, frames, y, x), y (*batch, frames, coils, y, x). Everything else is as in `MultiCoilMRI`; `restrict`
        takes a mask that broadcasts to (frames, y, x).

    Reference: Lustig et al., "k-t SPARSE: high frame rate dynamic MRI exploiting spatio-temporal sparsity", ISMRM 2006.
    """

    def __init__(self, maps: Tensor | None, masks: Tensor, *, shape: Sequence[int] | None = None, sets: bool = False):
        if not isinstance(masks, Tensor):
            raise InputError(f"DynamicMRI: masks: expected a torch.Tensor, got {type(masks).__name__}; convert it.")
        if masks.ndim not in (2, 3, 4) or masks.numel() == 0:
            raise InputError(
                f"DynamicMRI: masks: expected (frames, x), (frames, y, x) or (frames, z, y, x), got "
                f"{tuple(masks.shape)}; the first axis counts frames."
            )
        frames = masks.shape[0]
        dims = max(2, masks.ndim - 1) if shape is None else len(shape)
        if maps is None:
            maps = one_coil("DynamicMRI", masks.shape[1:] if shape is None else shape, sets, masks.device)
        image = "(coils, y, x)" if dims == 2 else "(coils, z, y, x)"
        check_maps(maps, (dims + 1 + sets, dims + 2 + sets), f"{image}{sets * ' with sets'} or one for each frame")
        if maps.ndim == dims + 2 + sets and maps.shape[0] != frames:
            raise InputError(
                f"DynamicMRI: expected maps for the {frames} frames of the masks, got {maps.shape[0]} in "
                f"{tuple(maps.shape)}; give one set of maps for each, or one for all."
            )
        empty = (masks == 0).flatten(1).all(1)
        if bool(empty.any()):
            raise InputError(
                f"DynamicMRI: masks: expected samples in every frame, got none in frame {int(empty.long().argmax())}; "
                "leave that frame out."
            )
        masks = masks.reshape(frames, *(1,) * (dims - masks.ndim + 1), *masks.shape[1:])
        self._build(maps, masks, tuple(maps.shape[-dims:]), shape, sets=sets, frames=frames)
