"""One reader for files of all kinds: a file is a stack of pages of known, limited size."""
