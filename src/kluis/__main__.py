"""``python -m kluis``."""

from kluis.cli.main import main

if __name__ == "__main__":
    main()
