"""From an image in [0, 1] to the complex field that leaves the object, and back.

A field holds a phase only modulo a turn (2 pi). So an image is read off a field in two ways: alone,
on one branch, which serves phase ranges well below a turn; or beside another image, as the
difference from that image, which serves all ranges.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from jax_kdpr.core.limits import SHARE, Range
from jax_kdpr.core.options import option, section
from jax_kdpr.core.types import Field, Image, Scalar
from jax_kdpr.optics.cdp import as_phasors
from jax_kdpr.optics.phase import align_global_phase

TURNS = 128  # number of global phases that `read_alone` tries


@section
class SceneOptions:
    """Encoding of an image as a field: `optics.objects.scene_field`."""

    kind: str = option("phase", "what the image encodes", choices=("phase", "amplitude", "complex"))
    phase_range: float = option(
        math.pi, "phase of a white pixel", unit="radians", within=Range(0, 1000, "(]")
    )
    min_amplitude: float = option(
        0.5,
        "amplitude of a black pixel",
        within=SHARE,
        when=("scene.kind", ("complex",)),
    )

    @property
    def channels(self) -> int:
        """How many images make one scene."""
        return 2 if self.kind == "complex" else 1

    @property
    def has_phase(self) -> bool:
        """Whether an image, or its first channel, is a phase."""
        return self.kind != "amplitude"

    @property
    def image_range(self) -> float:
        """Phase in radians of the value 1 in an image file; 0 unless scenes are phases alone."""
        return self.phase_range if self.kind == "phase" else 0.0


def scene_parts(
    image: Float[np.ndarray, "*b h w c"], scene: SceneOptions
) -> dict[str, Float[np.ndarray, "*b h w"]]:
    """Returns the phase and amplitude that an image in [0, 1] stands for, as float32.

    Returns:
        "phase" in radians, "amplitude" in [0, 1], or both.
    """
    if not scene.has_phase:
        return {"amplitude": image[..., 0].astype(np.float32)}
    parts = {"phase": (scene.phase_range * image[..., 0]).astype(np.float32)}
    if scene.kind == "complex":
        amplitude = scene.min_amplitude + (1.0 - scene.min_amplitude) * image[..., 1]
        parts["amplitude"] = amplitude.astype(np.float32)
    return parts


def scene_field(image: Image, scene: SceneOptions) -> Field:
    """Encodes an image as a complex field.

    * "phase": e^{j r img}, modulus 1. With r = 2 pi black and white are the same object; the
      default r = pi keeps them apart.
    * "amplitude": img itself, a real transmittance.
    * "complex": channel 0 is the phase image, channel 1 the amplitude image, mapped to
      [min_amplitude, 1]. The floor is needed because no measurement holds the phase of a pixel
      with zero amplitude.

    Args:
        image: Values in [0, 1]; 2 channels for "complex", else 1.
        scene: Encoding; r is its `phase_range`, the phase of a white pixel, in radians.

    Raises:
        ValueError: If the kind is none of these or the number of channels does not fit it.
    """
    if image.shape[-1] != scene.channels:
        raise ValueError(
            f"image: a {scene.kind} scene takes {scene.channels} channel(s), got {image.shape[-1]}"
        )
    match scene.kind:
        case "phase":
            return as_phasors(scene.phase_range * image[..., 0])
        case "amplitude":
            return lax.complex(image[..., 0], jnp.zeros_like(image[..., 0]))
        case "complex":
            amplitude = scene.min_amplitude + (1.0 - scene.min_amplitude) * image[..., 1]
            return amplitude * as_phasors(scene.phase_range * image[..., 0])
    raise unknown_scene(scene.kind)


def field_image(field: Field, scene: SceneOptions) -> Image:
    """Reads the image off a field: the inverse of `scene_field`, clipped to [0, 1].

    The phase is read on the branch centred on r / 2. Small errors around 0 and r are therefore
    clipped instead of wrapped: up to pi - r / 2 beyond either, which is nothing at r = 2 pi. The
    global phase must be set before, by `phase.align_global_phase`. The result is differentiable
    except where a phase is read off a field of zero, and where it is clipped.
    """
    phase_range, floor = scene.phase_range, scene.min_amplitude
    centre = jnp.exp(-0.5j * phase_range).astype(field.dtype)
    phase = (jnp.angle(field * centre) + 0.5 * phase_range) / phase_range
    amplitude = jnp.abs(field)
    match scene.kind:
        case "phase":
            channels = [phase]
        case "amplitude":
            channels = [amplitude]
        case "complex":
            channels = [phase, (amplitude - floor) / max(1.0 - floor, 1e-6)]
        case _:
            raise unknown_scene(scene.kind)
    return jnp.clip(jnp.stack(channels, axis=-1), 0.0, 1.0)


def read_alone(field: Field, scene: SceneOptions) -> Image:
    """Reads the image off a field of unknown global phase, without another image beside it.

    Of `TURNS` global phases, it takes the one for which the phase lies least outside its range,
    and of several such ones that of the darkest image. An amplitude needs no global phase.
    """
    if not scene.has_phase:
        return field_image(field, scene)
    turns = jnp.exp(-2j * jnp.pi * jnp.arange(TURNS) / TURNS).astype(field.dtype)

    def outside(turn: Complex[Array, ""]) -> Scalar:
        half = 0.5 * scene.phase_range
        phase = jnp.angle(turn * field * jnp.exp(-1j * half))
        excess = jnp.maximum(jnp.abs(phase) - half, 0.0)
        return jnp.mean(jnp.square(excess)) + 1e-3 * jnp.mean(phase)

    turn = turns[jnp.argmin(jax.vmap(outside)(turns))]
    return field_image(turn * field, scene)


def unknown_scene(kind: str) -> ValueError:
    """Returns the error for an unknown kind of scene."""
    return ValueError(f"scene: expected phase, amplitude or complex, got {kind!r}")


def image_beside(field: Field, image: Image, scene: SceneOptions) -> Image:
    """Reads the image off a field as the difference from another image, at any phase range.

    The field is first aligned to the global phase of the other image's field. Each phase then
    differs from that of the other image by at most half a turn:

        other image + angle(field * conj(other field)) / r.

    If the other image is the true one, as for a score, this difference is the error modulo a turn.
    Values that exceed black or white by less than pi - r / 2 are clipped, as in `field_image`; that
    is half of what a range r leaves of a turn. Larger ones stay outside [0, 1], and a caller that
    needs an image clips them. Amplitudes do not depend on the other image. The result is
    differentiable where that of `field_image` is.

    Args:
        field: Field of any global phase.
        image: The other image, in [0, 1]: a recovery that the field was refined from, or the truth.
        scene: Encoding of both.
    """
    phase_range = scene.phase_range
    aligned = align_global_phase(field, scene_field(image, scene))
    alone = field_image(aligned, scene)
    if not scene.has_phase:
        return alone
    step = jnp.angle(aligned * as_phasors(-phase_range * image[..., 0])) / phase_range
    phase = image[..., 0] + step
    slack = max(np.pi / phase_range - 0.5, 0.0)
    is_noise = (phase > -slack) & (phase < 1.0 + slack)
    return alone.at[..., 0].set(jnp.where(is_noise, jnp.clip(phase, 0.0, 1.0), phase))
