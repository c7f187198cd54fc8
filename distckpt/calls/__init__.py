"""The order of calls: which of the chief's calls each worker takes part in, and which save."""
