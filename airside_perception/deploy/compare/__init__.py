"""Two networks, engines or precisions side by side: outputs, every tensor between, and boxes."""
