"""From a PyTorch module to ONNX: factory, exporters, opsets, and the comparison of both."""
