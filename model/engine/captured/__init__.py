"""The engine for GPUs: whole searches captured in CUDA graphs over static buffers; runs uncaptured anywhere."""
