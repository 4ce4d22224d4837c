"""Data from a bench to learn from: shots of real objects, and their images where known."""

from typing import NamedTuple

from jax_kdpr.core.types import Images, Indices, Intensities


class Lessons(NamedTuple):
    """Shots through a system's own masks, one object per entry."""

    intensity: Intensities  # [n k sh sw], in the model's unit
    images: Images | None = None  # the true objects; None if they are not known

    def take(self, indices: Indices) -> "Lessons":
        """Returns the lessons at `indices`."""
        images = None if self.images is None else self.images[indices]
        return Lessons(self.intensity[indices], images)
