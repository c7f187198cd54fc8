"""Tools for testing distckpt and what extends it, for us and for users.

`storage_contract` and `coordinator_contract` are the clauses that every adapter must keep, as
pytest classes to subclass. Nothing outside of tests imports this package.
"""
