"""Studies: many runs from one declaration, and the report that is made of their folders."""
