"""Masks as files for a modulator or for etching, and the verification of such files."""
