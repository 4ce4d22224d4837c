"""Shared defaults of the files in `configs/`: one function for each scale of work.

Those that take a config return a changed copy of it.
"""

from copy import deepcopy

from jax_kdpr.config.schema import Config
from jax_kdpr.optics.misalignment import CAREFUL

CONSISTENCY_STEPS = 10  # steps of error reduction before the network
REFINE_STEPS = 10  # and after it


def quickstart() -> Config:
    """Returns a config of procedural 32 x 32 scenes: about a minute per run on two CPU cores.

    It needs no file.
    """
    config = Config()
    config.data.source = "scenes"
    config.data.size = 32
    config.net.widths = (16, 32, 64)
    return _short(config)


def cpu() -> Config:
    """Returns a config of Fashion-MNIST at 32 x 32: about five minutes per run on two CPU cores."""
    config = Config()
    config.data.source = "fashion_mnist"
    config.data.size = 32
    config.data.train_images = 4000
    config.data.validation_images = 1000
    config.net.widths = (16, 32, 64, 128)
    return _short(config)


def paper() -> Config:
    """Returns a config of the protocol of arXiv 2505.18352, section 4.1, to the letter.

    Fashion-MNIST at 96 x 96, 30,000 / 30,000 / 10,000 images, Adam at 5e-4 for everything, batch
    size 64, 120 epochs, T = 25. What the paper does not state takes the defaults of `Config`; loss
    weights are those of `student`.
    """
    config = Config()
    config.data.source = "fashion_mnist"
    config.data.size = 96
    config.optim.mask_lr = config.optim.filter_lr = config.optim.net_lr = 5e-4
    config.optim.schedule = "constant"
    config.train.batch_size = 64
    config.train.epochs = 120
    return config


def student(config: Config) -> Config:
    """Returns a baseline as a student: eq. 7 with weights that do no harm.

    The paper states no weights. With mean reductions, the terms of a trained student are 0.0034
    (task), 0.80 (CDP) and 0.13 (feature) in the last epoch of `configs/cpu`. At beta = 0.05 the CDP
    loss alone would determine the masks. In a trial of one seed each (32 x 32, 8 epochs), this beta
    gave 21.55 dB, beta = 0.0005 gave 22.23 dB, and E2E 22.20 dB.
    """
    config = deepcopy(config)
    config.regime = "student"
    config.loss.alpha = 0.999
    config.loss.beta = 0.0005
    return config


def bench(config: Config, *, samples: int = 2, modulator: bool = True) -> Config:
    """Returns a run on a bench: an 8-bit modulator, a 12-bit camera, and errors of alignment.

    The numbers are those of a common liquid-crystal modulator (256 levels over one turn, 93 % fill
    factor, some crosstalk, 1 % of the light reflected unmodulated), of a scientific CMOS camera,
    and of careful alignment (`optics.misalignment.CAREFUL`). Replace them by those of your devices'
    data sheets. With `modulator` False the mask is of glass: it has any height, and no errors of
    its own.

    The finest fringe, one cycle of the object's side, covers some 15 pixels of the camera. The
    model takes one sample or two of it (`samples`). At the same light in a frame, two samples gain
    1.12 +- 0.89 dB (results/bench-sampling); each of them sums a quarter as many pixels. Read noise
    and full well are those of one pixel to a fringe. `train --bench` computes those of your camera,
    whose joined pixels have more of both.
    """
    config = deepcopy(config)
    config.masks.oversample = samples
    if modulator:
        config.device.levels = 256
        config.device.crosstalk = 0.3
        config.device.fill_factor = 0.93
        config.device.zero_order = 0.01
    config.noise.kind = "camera"
    config.noise.photons = 1e6
    config.noise.read_noise = 2.0 / samples
    config.noise.full_well = 1e4 / samples**2
    for name, spread in CAREFUL.items():
        if modulator or name != "gain":
            setattr(config.jitter, name, spread)
    return config


def recipe(config: Config) -> Config:
    """Returns our own variant of a run of any regime.

    Error reduction runs before the network, and again after it, as far as the network's gate lets
    it. A student takes over masks, filter and network from its teacher, instead of being guided by
    losses. Use the recipe for teacher and student alike. The teacher may as well be an E2E run: the
    gain comes from the second training at the full learning rate (results/study-cpu).
    """
    config = deepcopy(config)
    config.spectral.consistency_steps = CONSISTENCY_STEPS
    config.net.refine_steps = REFINE_STEPS
    if config.regime == "student":
        config.loss.alpha, config.loss.beta = 1.0, 0.0
        config.distill.start = "all"
    return config


def fast(config: Config) -> Config:
    """Returns a run of more frames per second: error reduction, then a smaller network.

    The network is a residual U-Net with a quarter of the config's widths. At 32 x 32 it recovers
    better than a U-Net of the full widths without error reduction (results/speed-cpu).
    """
    return _residual(config, narrower=4)


def live(config: Config) -> Config:
    """Returns a run that keeps up with a camera: error reduction after the network too.

    The network is a residual U-Net with half the config's widths. With half the paper's widths it
    recovers 30 frames of 96 x 96 pixels per second, one at a time, on one of two CPU cores
    (results/speed-cpu).
    """
    config = _residual(config, narrower=2)
    config.net.refine_steps = REFINE_STEPS
    return config


def _residual(config: Config, *, narrower: int) -> Config:
    config = deepcopy(config)
    config.spectral.consistency_steps = CONSISTENCY_STEPS
    config.net.kind = "residual_unet"
    config.net.widths = tuple(width // narrower for width in config.net.widths)
    return config


def _short(config: Config) -> Config:
    """Sets a training of minutes; at the paper's rates, masks hardly move in so few steps."""
    config.optim.mask_lr = 2e-2
    config.optim.filter_lr = 2e-3
    config.optim.net_lr = 2e-3
    config.optim.schedule = "cosine"
    config.train.batch_size = 32
    config.train.epochs = 10
    return config
