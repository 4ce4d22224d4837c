"""From an image in [0, 1] to the complex field that leaves the object, and back.

A phase repeats after a turn, and a field has no more. So the image is read off a field in two ways:
alone, on one branch, which serves phase ranges well below a turn; or beside another image, as the
step from there, which serves them all.
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
from jax_kdpr.optics.cdp import mask_transmittance
from jax_kdpr.optics.phase import align_global_phase

TURNS = 128  # global phases that `read_alone` tries


@section
class SceneOptions:
    """Encoding of an image as a field: `optics.objects.scene_field`."""

    kind: str = option(
        "phase", "what an image is of its field", choices=("phase", "amplitude", "complex")
    )
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
        """Radians that an image file's value 1 stands for; 0 where files are no phases alone."""
        return self.phase_range if self.kind == "phase" else 0.0


def scene_parts(
    image: Float[np.ndarray, "*b h w c"], scene: SceneOptions
) -> dict[str, Float[np.ndarray, "*b h w"]]:
    """Returns what an image in [0, 1] stands for, in the units of the object, float32.

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
      [min_amplitude, 1]. Where the amplitude is zero no measurement holds the phase: hence a floor.

    Args:
        image: Values in [0, 1]; 2 channels for "complex", else 1.
        scene: With r = `phase_range`, the phase of a white pixel, in radians.

    Raises:
        ValueError: If the kind is none of these or the channels do not fit it.
    """
    if image.shape[-1] != scene.channels:
        raise ValueError(
            f"image: a {scene.kind} scene takes {scene.channels} channel(s), got {image.shape[-1]}"
        )
    match scene.kind:
        case "phase":
            return mask_transmittance(scene.phase_range * image[..., 0])
        case "amplitude":
            return lax.complex(image[..., 0], jnp.zeros_like(image[..., 0]))
        case "complex":
            amplitude = scene.min_amplitude + (1.0 - scene.min_amplitude) * image[..., 1]
            return amplitude * mask_transmittance(scene.phase_range * image[..., 0])
    raise unknown_scene(scene.kind)


def field_image(field: Field, scene: SceneOptions) -> Image:
    """Reads the image off a field: the inverse of `scene_field`, clipped to [0, 1].

    The phase is read on the branch centred on r / 2, so that small errors around 0 and r clip
    instead of wrapping: up to pi - r / 2 beyond either, nothing at r = 2 pi. The global phase must
    have been settled before, by `phase.align_global_phase`. Differentiable but where a phase is
    read off a field of zero, and where it clips.
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
    """Reads the image off a field of unknown global phase, beside which nothing else is known.

    Of `TURNS` global phases that one is taken at which least of the phase lies outside of the
    range, and of those the one of the darkest image. An amplitude needs none.
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
    """Returns the error that a kind of scene is none."""
    return ValueError(f"scene: expected phase, amplitude or complex, got {kind!r}")


def image_beside(field: Field, image: Image, scene: SceneOptions) -> Image:
    """Reads the image off a field as a step from another image, at any phase range.

    The field is turned to the global phase of the other image's. Then a phase differs from that of
    the other by what lies within half a turn,

        image + angle(field * conj(other field)) / r.

    Beside the true image, for a score, this is its error modulo a turn. What exceeds black or white
    by less than pi - r / 2 is clipped, as `field_image` does: all that a range r leaves of a turn,
    halved. The rest stays as it is, beyond [0, 1]; who wants an image clips it. Amplitudes do not
    depend on the other image. Differentiable as `field_image`.

    Args:
        field: Of any global phase.
        image: The other image, in [0, 1]: a recovery that the field was refined from, or the truth.
        scene: Encoding of both.
    """
    phase_range = scene.phase_range
    aligned = align_global_phase(field, scene_field(image, scene))
    alone = field_image(aligned, scene)
    if not scene.has_phase:
        return alone
    step = jnp.angle(aligned * mask_transmittance(-phase_range * image[..., 0])) / phase_range
    phase = image[..., 0] + step
    slack = max(np.pi / phase_range - 0.5, 0.0)
    is_noise = (phase > -slack) & (phase < 1.0 + slack)
    return alone.at[..., 0].set(jnp.where(is_noise, jnp.clip(phase, 0.0, 1.0), phase))
