"""False objects of one shot: exact where theory says so, told apart where it says so."""

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import free_space

from jax_kdpr.evaluation.uniqueness.ambiguity import (
    circular_shifts,
    constraint_distance,
    mirror,
    misfit,
    shifted,
    twin,
)
from jax_kdpr.optics.device import DeviceOptions, device_masks

pytestmark = pytest.mark.usefixtures("x64")
H, W = 6, 5
SHIFT = (2, -1)


def draw(k: int, seed: int = 0) -> tuple[jnp.ndarray, jnp.ndarray]:
    """A phase object and masks."""
    rng = np.random.default_rng(seed)
    field = np.exp(1j * rng.uniform(0, np.pi, (H, W)))
    return jnp.asarray(field), jnp.asarray(rng.uniform(0, 2 * np.pi, (k, H, W)))


FALSE = {"twin": twin, "mirror": mirror, "shift": lambda field, masks: shifted(field, masks, SHIFT)}
every_kind = pytest.mark.parametrize("kind", FALSE)


def test_the_formulas_are_the_papers():
    field, phases = draw(1)
    x, d = np.asarray(field), np.exp(1j * np.asarray(phases[0]))
    for r in np.ndindex(H, W):
        back = (-r[0] % H, -r[1] % W)
        flip = (H - 1 - r[0], W - 1 - r[1])
        before = ((r[0] - SHIFT[0]) % H, (r[1] - SHIFT[1]) % W)
        expected = {
            "twin": d[r] * d[back] * np.conj(x[back]),
            "mirror": d[r] * d[flip] * np.conj(x[flip]),
            "shift": d[r] * np.conj(d[before]) * x[before],
        }
        for kind, value in expected.items():
            np.testing.assert_allclose(FALSE[kind](field, phases)[r], value, atol=1e-12)


@every_kind
def test_one_unpadded_shot_does_not_know_them(kind):
    field, phases = draw(1)
    false = FALSE[kind](field, phases)
    assert misfit(field, false, phases) < 1e-12
    # With a matrix, and not only with the operator that they were made for.
    y = oracles.intensity(np.asarray(false), np.asarray(phases))
    np.testing.assert_allclose(y, oracles.intensity(np.asarray(field), np.asarray(phases)))
    assert constraint_distance(false, scene="phase") < 1e-10
    overlap = abs(np.vdot(np.asarray(false), np.asarray(field))) / (H * W)
    assert overlap < 0.8  # another object, not the same at another global phase


@every_kind
def test_three_shots_know_them_and_padding_what_goes_around_the_edge(kind):
    field, phases = draw(3)
    assert misfit(field, FALSE[kind](field, phases), phases) > 0.2
    field, phases = draw(1)
    padded = float(misfit(field, FALSE[kind](field, phases), phases, oversample=2))
    assert padded < 1e-12 if kind == "mirror" else padded > 0.1


@every_kind
def test_a_fresnel_transform_keeps_them_and_an_angular_spectrum_does_not(kind):
    field, phases = draw(1)
    lengths = {"wavelength": 5e-7, "pitch": 8e-6}
    fresnel = free_space((H, W), kind="fresnel", distance=1e-3, **lengths)
    masks = fresnel.through(phases)
    assert misfit(field, FALSE[kind](field, masks), masks) < 1e-12
    near = free_space((H, W), kind="angular_spectrum", distance=2e-4, **lengths)
    false = FALSE[kind](field, phases)
    assert misfit(field, false, phases, path=near.transfer) > 0.02


@every_kind
def test_a_real_device_moves_them_off_the_phase_objects(kind):
    field, phases = draw(1)
    masks = device_masks(phases, DeviceOptions(zero_order=0.1))
    false = FALSE[kind](field, masks)
    assert misfit(field, false, masks) < 1e-10
    modulus = np.abs(np.asarray(false))
    expected = np.linalg.norm(modulus - 1) / np.linalg.norm(modulus)
    np.testing.assert_allclose(constraint_distance(false, scene="phase"), expected, rtol=1e-6)
    assert expected > 0.05


def test_false_objects_of_an_amplitude_scene_are_no_amplitudes():
    rng = np.random.default_rng(3)
    field = jnp.asarray(rng.uniform(0.2, 1, (H, W)) + 0j)
    _, phases = draw(1)
    assert constraint_distance(field, scene="amplitude") < 1e-12
    assert constraint_distance(1j * field, scene="amplitude") < 1e-12  # global phase is free
    false = twin(field, phases)
    assert misfit(field, false, phases) < 1e-12
    assert constraint_distance(false, scene="amplitude") > 0.5


def test_shifts_are_all_of_them_or_a_sample_with_the_nearest():
    every = circular_shifts(4, 3, most=11)
    assert len(set(every)) == 11 and (0, 0) not in every
    some = circular_shifts(12, 12, most=30)
    assert len(set(some)) == 30 and (0, 0) not in some
    assert {(1, 0), (11, 0), (0, 1), (0, 11), (1, 1), (11, 11), (1, 11), (11, 1)} <= set(some)
    assert some == circular_shifts(12, 12, most=30)
