"""Speed of a training step that augments images kept on the GPU: a design study, see README.md."""
