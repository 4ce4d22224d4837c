"""Which other objects give the same pattern, and what a mask lets one know of them."""
