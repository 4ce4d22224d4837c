"""A network for another lab's bench: one Fourier frame of a phase object, no mask but a defocus.

The bench is that of SiSPRNet (Ye, Wang and Lun, Opt. Express 30, 31937, 2022), whose frames are not
part of this package: docs/science/measured.md. Its optics come from a calibration, by
`--config.optics=calibration.json`. This file gives the objects, the window that the camera sees,
and how much the bench may differ from its calibration.
"""

import math

from jax_kdpr.config import Config, presets


def get_config() -> Config:
    """Returns the config of this run."""
    config = presets.cpu()
    config.regime = "random"  # there is no mask to train, and the filter stays as it is
    config.data.train_images = 12000
    config.scene.phase_range = 190 / 255 * 2 * math.pi  # the modulator's gray levels 30 to 220
    config.masks.start = "flat"
    config.illumination.kind = "gaussian"
    config.sensor.step = 0.5
    config.sensor.rows = config.sensor.columns = 41
    config.spectral.consistency_steps = 50
    # The camera has 12 bits, all of which the brightest frame uses.
    config.noise.kind = "camera"
    config.noise.photons = 3e5
    config.jitter.defocus = 0.05
    config.jitter.wavelength = 0.003
    config.jitter.waist = 0.15
    config.jitter.beam = 0.05
    config.jitter.wavefront = 0.15
    return config
