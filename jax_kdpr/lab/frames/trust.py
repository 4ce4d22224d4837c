"""What to say of frames that should not be believed as they are."""

from typing import Any

SATURATED = 5e-3  # share of pixels
ENERGY = 0.2  # relative difference from that of a scene of modulus 1


def frame_warnings(row: dict[str, Any], limit: float, *, modulus_one: bool) -> str:
    """Returns what is wrong with one object's result, in one line; empty if nothing is.

    Args:
        row: Of results.json.
        limit: Of its misfit.
        modulus_one: Whether the scene's energy is known, and so its unit can be checked.
    """
    said = []
    if row["misfit"] > limit:
        said.append(
            f"misfit {row['misfit']:.3f} above {limit:.3f}: the object does not explain its pattern"
        )
    if row["saturation"] > SATURATED:
        said.append(f"{row['saturation']:.1%} of the pixels are saturated")
    if modulus_one and abs(row["energy"] - 1.0) > ENERGY:
        said.append(
            f"the frame holds {row['energy']:.3g} times the light of a phase object: wrong --gain, "
            "exposure or bit depth"
        )
    return "; ".join(said)


def stack_warnings(rows: list[dict[str, Any]], median: float, limit: float) -> list[str]:
    """Returns what is wrong with all frames together."""
    said = []
    if median > limit:
        said.append(
            f"median misfit {median:.3f} above {limit:.3f}: check orientation, centre, scale, dark "
            "and the mask that was shown, or the objects are unlike those of the training"
        )
    bits = min(row["unused_bits"] for row in rows)
    if bits:
        said.append(
            f"all counts are multiples of {2**bits}: {16 - bits}-bit data left-justified in 16 "
            "bits? dark, flat, --gain and calibration must be of the same kind"
        )
    return said
