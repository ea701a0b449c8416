"""Networks: each a function from input shape and class count to a Keras model of logits."""
