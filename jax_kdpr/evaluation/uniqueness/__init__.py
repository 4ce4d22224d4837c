"""Which other objects give the same pattern, and how well a mask determines an object."""
