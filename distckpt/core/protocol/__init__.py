"""The protocol as data and state machines: plans, messages, deadlines. Pure."""
