"""How a preempted job saves and ends."""
