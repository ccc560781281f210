"""Training of the package's own networks, in torch on one accelerator; not installed."""
