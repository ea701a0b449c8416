"""What a run has seen and which shortcuts it took: the protocol, and images known from earlier training."""
