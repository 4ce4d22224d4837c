"""Fits the request for a mask export to the run that is exported."""

import math

import numpy as np

from jax_kdpr.config.schema import Config
from jax_kdpr.core.errors import InputError
from jax_kdpr.core.limits import require_pixels
from jax_kdpr.core.options import changed
from jax_kdpr.optics.mask_files.format import CONJUGATE, DIRECT, SLM, MaskFormat, check_format
from jax_kdpr.optics.mask_files.layout import place


def plan_export(asked: MaskFormat, config: Config) -> MaskFormat:
    """Returns the format that is asked for, with the lengths of a run and its table if it has one.

    Raises:
        InputError: As `check_format`, or if the format does not fit the run.
    """
    if asked.format == SLM and asked.mask_pitch and not asked.pixel_pitch:
        raise InputError(
            "--pixel_pitch: is needed beside --mask_pitch, to know how many panel pixels show one "
            "mask pixel; give it, or --magnify"
        )
    plan = changed(
        asked,
        wavelength=_of_run("wavelength", asked.wavelength, config.propagation.wavelength),
        mask_pitch=_of_run("mask_pitch", asked.mask_pitch, config.propagation.pitch),
    )
    if plan.format == SLM:
        _check_device(plan, config)
        if not plan.table:
            # The run's table holds phi, which multiplies the light by e^{-j phi}.
            sign = -1 if plan.sign == CONJUGATE else 1
            plan.table = tuple(sign * phase for phase in config.device.table)
    check_format(plan)
    if plan.format == SLM:
        plan.magnify = _magnification(plan, as_trained=config.device.panel_pixels)
        plan.mask_pitch = plan.mask_pitch or plan.magnify * plan.pixel_pitch
    size = config.data.size
    require_pixels("--magnify", plan.side * size, plan.side * size)
    place(np.zeros((size, size), np.uint8), plan)  # refuses a panel that is too small
    return plan


def _of_run(name: str, given: float, of_run: float) -> float:
    """Returns a length; one that is given must agree with that of a run for a near field."""
    if given and of_run and not math.isclose(given, of_run, rel_tol=1e-6):
        raise InputError(
            f"--{name}: the run was trained with {of_run:g} m, got {given:g}; leave it out"
        )
    return given or of_run


def _magnification(plan: MaskFormat, *, as_trained: int) -> int:
    if not (plan.mask_pitch and plan.pixel_pitch):
        return plan.magnify or as_trained
    ratio = plan.mask_pitch / plan.pixel_pitch
    magnify = round(ratio)
    if magnify < 1 or abs(ratio - magnify) > 1e-6 * ratio:
        raise InputError(
            f"--mask_pitch: expected a multiple of --pixel_pitch {plan.pixel_pitch:g} m, got "
            f"{plan.mask_pitch:g}, {ratio:.4g} times that; give --magnify in place of "
            "--mask_pitch, or train for another pitch"
        )
    if plan.magnify not in (0, magnify):
        raise InputError(
            f"--magnify: the pitches give {magnify}, got {plan.magnify}; leave one of them out"
        )
    return magnify


def _check_device(plan: MaskFormat, config: Config) -> None:
    """Refuses levels that differ from those of the device that the run was trained for."""
    device, top = config.device, 2**plan.bits
    limited = device.phase_range < math.tau
    if limited and plan.sign == DIRECT:
        raise InputError(
            "--sign: direct writes phi, but the run was trained for a device with p = -phi in "
            f"[0, {device.phase_range:.4g}]; leave it out"
        )
    if plan.table or device.table or plan.gray_2pi:
        return
    if limited:
        reaching = math.tau / device.phase_range * (top - 1)
        raise InputError(
            f"--gray_2pi: the run's device reaches {device.phase_range:.4g} rad; say which gray "
            f"level 2 pi would have ({reaching:.0f} if the largest level reaches that), or give "
            "--table"
        )
    if device.levels and top % device.levels:
        raise InputError(
            f"--gray_2pi: the run was trained for {device.levels} levels a turn, which are not "
            f"among those of {top}; give the gray level at which the panel reaches 2 pi, such as "
            f"{device.levels}, or --table"
        )
