"""Names for the arrays that flow through the package.

Axis letters mean the same everywhere: ``b`` batch, ``k`` mask (one per snapshot), ``h w`` object
plane, ``mh mw`` mask plane (sampled like the object plane or more finely), ``sh sw`` sensor plane,
``c`` channel, ``n`` filter tap. Shapes are checked in the tests only (``--jaxtyping-packages``), so
that the checks cost a run nothing.
"""

from typing import Any

from jaxtyping import Array, Complex, Float, Int, PRNGKeyArray, Shaped
from jaxtyping import Key as KeyArray

Image = Float[Array, "h w c"]  # scene image in [0, 1]; c = 2 (phase, amplitude) if it is complex
Field = Complex[Array, "h w"]  # complex optical field in the object plane
Phases = Float[Array, "k h w"]  # mask phases, radians
# Phases phi in radians, or complex phasors e^{j phi} where the device is not ideal.
Masks = Float[Array, "k mh mw"] | Complex[Array, "k mh mw"]
# Transfer function of free space, in the Fourier plane of the (padded) field.
Transfer = Complex[Array, "sh sw"]
Spectra = Complex[Array, "k sh sw"]  # complex fields in the sensor plane, zero frequency at [0, 0]
Intensity = Float[Array, "k sh sw"]  # what the sensor records: a coded diffraction pattern (CDP)
Kernel = Float[Array, "n n"]  # low-pass filter of the spectral initialisation
Scalar = Float[Array, ""]
Key = PRNGKeyArray
Keys = KeyArray[Array, "b"]

Images = Float[Array, "b h w c"]
Intensities = Float[Array, "b k sh sw"]
Patterns = Float[Array, "b sh sw"]  # means of a CDP over its snapshots
Fields = Complex[Array, "b h w"]
Features = Float[Array, "b fh fw f"]
Gates = Float[Array, "b h w 1"]  # weights that blend two recovered images, in (0, 1)
# Data set on the device: any size, uint8, uint16 or float; where each scene has channels of its
# own, they come last.
RawImages = Shaped[Array, "n rh rw *c"]
Residuals = Float[Array, "b"]  # residuals of the power iteration, 0 where it has converged
Indices = Int[Array, "b"]

PyTree = Any
Params = dict[str, Any]  # {"phases": [k h w], "filter": [n n], "net": {...}}
State = dict[str, Any]  # {"start": [h w] complex, "net": batch statistics}: carried, never trained
