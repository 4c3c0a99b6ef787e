"""The text-diffusion engine: a prefix and a suffix in, the text between them out.

Importing this package does not import torch. `api`, `client`, `launcher` and `errors` are the torch-free half
that the language server uses; everything else belongs to the engine's own process.
"""

__version__ = "0.1.0"
