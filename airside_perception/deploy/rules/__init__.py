"""Rules of TensorRT for ONNX nodes, one YAML a JetPack generation; `deploy.lint` reads them."""
