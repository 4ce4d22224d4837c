"""Means over seeds and their intervals, and tests of one run against another on the same images."""

from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over seeds with half the width of its 95 % interval (Student's t)."""

    mean: float
    half_width: float  # NaN with a single seed

    def text(self, form: str = ".2f") -> str:
        """Returns text such as "26.41 ± 0.12"; with a single seed there is no interval."""
        spread = "" if np.isnan(self.half_width) else f" ± {self.half_width:{form.lstrip('+')}}"
        return f"{self.mean:{form}}{spread}"


class PairedTest(NamedTuple):
    """One system compared with another on the same images."""

    share_better: float  # of the images
    p_value: float  # Wilcoxon signed rank, two-sided


def over_seeds(values: list[float]) -> Estimate:
    """Returns the mean of one value for each seed, and its 95 % interval.

    The seeds count as a sample from a normal distribution. With n seeds the half-width is
    t(n - 1) s / sqrt(n), which is 2.5 standard deviations for three seeds.
    """
    count = len(values)
    if count < 2:
        return Estimate(float(np.mean(values)), float("nan"))
    error = np.std(values, ddof=1) / np.sqrt(count)
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1)
    return Estimate(float(np.mean(values)), float(quantile * error))


def over_images(differences: np.ndarray) -> PairedTest:
    """Tests differences of image scores [seeds images], which are first averaged over the seeds.

    The test says whether these trained systems differ on the images. Whether systems of new seeds
    would differ is what the interval over seeds says.
    """
    per_image = np.mean(differences, axis=0)
    if not np.any(per_image):
        return PairedTest(0.5, 1.0)
    p_value = np.asarray(stats.wilcoxon(per_image))[1]
    ties = np.mean(per_image == 0) / 2
    return PairedTest(float(np.mean(per_image > 0) + ties), float(p_value))
