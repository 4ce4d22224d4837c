"""Run folders: what a training leaves, and a trained system made of it again."""
