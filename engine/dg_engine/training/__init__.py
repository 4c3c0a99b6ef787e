"""From public source code to a checkpoint: corpus, tokenizer, spans, batches, objective, optimiser, trainer, card."""
