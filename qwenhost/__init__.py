"""qwenhost: should you self-host Qwen3.5-122B-A10B, and if so, how exactly?"""

__version__ = "0.1.0"
