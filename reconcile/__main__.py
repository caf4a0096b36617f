"""Run the command line; what no command expected is a bug: its traceback, and exit code 70."""

import sys


def main() -> int:
    """The exit code of the command that this process was started with."""
    try:
        from reconcile import cli  # noqa: PLC0415 - a broken installation is told like any other bug
    except KeyboardInterrupt:
        return 130
    arguments = sys.argv[1:]
    try:
        return cli.invoke(arguments)
    except Exception as error:  # noqa: BLE001 - this is where the unexpected ends
        return cli.bug(error, arguments)


if __name__ == "__main__":
    code = main()
    # Python dies of a Ctrl-C that passed through exec, as a dataclass's, though it was caught; the next exec forgets it
    exec("")  # noqa: S102
    sys.exit(code)
