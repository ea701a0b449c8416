"""What is wrong with a data set: damaged files, copies, contradicting labels, leaks, and what is done about them."""
