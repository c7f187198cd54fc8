"""Tools for testing distckpt and its extensions, for us and for users.

`storage_contract` and `coordinator_contract` have the clauses that every adapter must satisfy, as
pytest classes to subclass. Only tests import this package.
"""
