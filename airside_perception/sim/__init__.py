"""A simulated apron: scenes and the sensors that see them."""
