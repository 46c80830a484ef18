"""``python -m pylinregion``."""

from pylinregion.cli.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
