from ..manager.conftest import make, observer  # noqa: F401
