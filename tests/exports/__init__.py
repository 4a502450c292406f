"""Models as files: exports to ONNX and OpenVINO with their gates, and exported folders."""
