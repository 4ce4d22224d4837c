"""Measured data: frames of a real camera on their way to the CDPs that a system takes."""
