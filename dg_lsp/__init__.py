"""The language server: in-line completions for any editor that speaks LSP. Never imports torch."""

__version__ = "0.1.0"
