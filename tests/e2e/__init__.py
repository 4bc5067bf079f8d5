"""End-to-end tests: real vLLM on the CPU, serving a tiny Qwen3.5-MoE."""
