"""Teachers that exist already: stored outputs, students, ONNX files, functions and local model folders."""
