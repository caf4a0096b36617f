"""What every test may use: goldens."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write the golden files anew, for review")


def pytest_configure() -> None:
    """A job that a shell starts in the background ignores Ctrl-C, and so would every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name; a missing one fails, `--update-goldens` writes it."""

    def compare(name: str, text: str) -> None:
        kept = GOLDEN / name
        if request.config.getoption("--update-goldens"):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text, encoding="utf-8", newline="\n")
        assert kept.is_file(), f"{kept} is missing: run pytest --update-goldens and review what it writes"
        assert text == kept.read_text(encoding="utf-8"), f"differs from {kept}: run pytest --update-goldens and review"

    return compare
