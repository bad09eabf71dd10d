"""The command line: parse, build the dataclasses, call, save."""
