"""The CUDA seam, through cuda-bindings or pycuda."""
