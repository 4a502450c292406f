from tests import quick_end  # noqa: F401 - for what it does
