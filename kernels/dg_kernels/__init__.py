"""The operations of the model, each behind one public function with a readable PyTorch reference."""
