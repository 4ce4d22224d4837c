"""From an object and mask phases to what a camera measures: coded diffraction patterns."""
