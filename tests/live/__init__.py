import pytest

# Assertions of the stage explain themselves as those of a test do.
pytest.register_assert_rewrite("tests.live.stage")
