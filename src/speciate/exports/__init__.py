"""Models as files for others, and for other engines: `export_model` (a folder) and `convert` (ONNX, OpenVINO, int8).

May use: lineage, training, evaluation and below.
"""
