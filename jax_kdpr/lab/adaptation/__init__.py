"""Teaching a one-shot system on its own bench, by more shots of the same objects."""
