"""One reader of everybody's files: each is a stack of pages, of a known and limited size."""
