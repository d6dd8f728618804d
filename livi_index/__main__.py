"""``python -m livi_index`` is the command ``livi-index``."""

if __name__ == "__main__":
    # Not above: every decoding process imports this module again.
    from livi_index.cli import main

    main()
