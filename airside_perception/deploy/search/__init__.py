"""Which nodes may be INT8: sensitivity by node, a greedy search, the Pareto front."""
