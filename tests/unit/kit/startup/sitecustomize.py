"""Python imports this at its start, because tests/conftest.py puts its folder on PYTHONPATH."""

import lean_import  # noqa: F401
