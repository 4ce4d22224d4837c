"""What every room uses: types, errors, limits of numbers and files, options, devices, metrics."""
