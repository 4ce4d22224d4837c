"""Masks as files for a modulator or an etch, and those files read again."""
