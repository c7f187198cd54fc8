"""Wires a manager: from its arguments and options to the roles that do the work."""
