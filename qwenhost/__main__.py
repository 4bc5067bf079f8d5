"""``python -m qwenhost``, where the command is not on the path."""

from qwenhost.cli.main import main

if __name__ == "__main__":
    main()
