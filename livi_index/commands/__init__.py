"""Commands of the command line, by noun; each parses, makes one call and prints."""
