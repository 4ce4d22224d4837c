"""What the options that take one of a few words can be."""

import enum


class Regime(enum.StrEnum):
    """The paper's four configurations."""

    TEACHER = "teacher"  # end to end (eq. 4) with several snapshots
    E2E = "e2e"  # end to end with the snapshots of the student: the baseline
    RANDOM = "random"  # masks and filter stay at their random start; only the network is trained
    STUDENT = "student"  # guided by a trained teacher (eq. 7)


class Source(enum.StrEnum):
    """Where scene images come from."""

    SCENES = "scenes"
    FASHION_MNIST = "fashion_mnist"
    IMAGES = "images"


class Fit(enum.StrEnum):
    """How an image file that is not square becomes so: `data.image_files`."""

    STRETCH = "stretch"
    CROP = "crop"  # its middle
    PAD = "pad"  # with 0: black, or no phase


class Unit(enum.StrEnum):
    """What the values of image files are."""

    FRACTION = "fraction"  # of `scene.phase_range`
    RADIANS = "radians"


class SceneKind(enum.StrEnum):
    """How an image becomes a field: `optics.objects.scene_field`."""

    PHASE = "phase"
    AMPLITUDE = "amplitude"
    COMPLEX = "complex"


class NoiseKind(enum.StrEnum):
    """Sensor noise: `optics.noise.add_noise`."""

    NONE = "none"
    GAUSSIAN = "gaussian"
    POISSON = "poisson"
    CAMERA = "camera"


class PropagationKind(enum.StrEnum):
    """What lies between mask and sensor: `optics.propagation`."""

    FAR = "far"
    FRESNEL = "fresnel"
    ANGULAR_SPECTRUM = "angular_spectrum"


class Weights(enum.StrEnum):
    """Weights of Gamma: `recovery.spectral.spectral_weights`."""

    SOFT = "soft"
    INTENSITY = "intensity"
    TOPK = "topk"
    THRESHOLD = "threshold"


class Gauge(enum.StrEnum):
    """What sets the estimate's global phase: `optics.phase.fix_global_phase`."""

    START = "start"
    MEAN = "mean"


class Norm(enum.StrEnum):
    """Norm layers of the U-Net."""

    BATCH = "batch"
    GROUP = "group"
    NONE = "none"


class Precision(enum.StrEnum):
    """Arithmetic of the network's convolutions; physics, losses and weights are float32 always."""

    FLOAT32 = "float32"
    TF32 = "tf32"  # on NVIDIA GPUs: float32 with a mantissa of 10 bits; elsewhere float32
    BFLOAT16 = "bfloat16"


class TargetMode(enum.StrEnum):
    """Where a student's step gets its teacher's CDP and features from: `training.targets`."""

    AUTO = "auto"  # cached where they never change and fit
    LIVE = "live"  # the teacher runs in every step
    CACHED = "cached"


class StudentStart(enum.StrEnum):
    """Which parts of a student start from its teacher's, the others at random."""

    NONE = "none"
    OPTICS = "optics"  # its first mask(s) and the filter
    NETWORK = "network"
    ALL = "all"


class Regulariser(enum.StrEnum):
    """R(phi) of eq. 4: `optics.masks.mask_penalty`."""

    NONE = "none"
    RANGE = "range"
    SMOOTHNESS = "smoothness"


class Schedule(enum.StrEnum):
    """Course of all learning rates over the training."""

    CONSTANT = "constant"
    COSINE = "cosine"  # from the full rate to zero along half a cosine
