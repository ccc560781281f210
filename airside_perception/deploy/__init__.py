"""The `engine` tool: from a trained network to a trusted engine."""
