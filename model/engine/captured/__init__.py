"""The engine for GPUs: whole searches, captured as CUDA graphs over static buffers; runs uncaptured on any device."""
