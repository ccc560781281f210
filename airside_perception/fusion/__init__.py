"""Late fusion in bird's-eye view."""
