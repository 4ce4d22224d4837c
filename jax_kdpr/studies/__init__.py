"""Studies: many runs from one declaration, and a report that is made from their folders."""
