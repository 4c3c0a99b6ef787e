"""Which choices of training pay: many short runs that differ in one number each, measured alike."""
