"""Optional kernels, a folder for each way to make them. What they compute is written in `autograd/ops`."""
