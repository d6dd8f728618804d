"""``python -m livi_index`` is the command ``livi-index``."""

from livi_index.cli import main

if __name__ == "__main__":
    main()
