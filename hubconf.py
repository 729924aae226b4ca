"""For torch.hub: `torch.hub.load("<owner>/earshot", "earshot", "models/correspond")` is `earshot.load`."""

from earshot.embedding.loading import load as earshot  # noqa: F401

dependencies = ["torch", "torchvision", "torchaudio", "safetensors", "av", "soxr"]
