"""Run folders: what a training writes, and how a trained system is restored from it."""
