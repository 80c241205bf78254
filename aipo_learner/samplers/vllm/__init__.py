"""The sampler on vLLM, in process or served."""
