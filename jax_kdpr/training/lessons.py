"""What a bench has shown: shots of real objects, and what these were, where that is known."""

from typing import NamedTuple

from jax_kdpr.core.types import Images, Indices, Intensities


class Lessons(NamedTuple):
    """Shots through a system's own masks, an object each."""

    intensity: Intensities  # [n k sh sw], in the model's unit
    images: Images | None = None  # what the objects were; None where nobody knows

    def take(self, indices: Indices) -> "Lessons":
        """Returns some of them."""
        images = None if self.images is None else self.images[indices]
        return Lessons(self.intensity[indices], images)
