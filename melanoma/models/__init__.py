"""Networks. Each is a function from image size and number of classes to a Keras model that returns logits."""
