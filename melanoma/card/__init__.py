"""The model card: what a model is for, what it was made of, how it does, and what is not known of it."""
