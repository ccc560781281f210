"""`engine triton`: a model repository for the Triton inference server."""
