"""Models on disk: Hugging Face directories, safetensors, weight tables."""
