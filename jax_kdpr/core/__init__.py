"""What every subpackage uses: types, errors, checks of input, options, devices, and metrics."""
