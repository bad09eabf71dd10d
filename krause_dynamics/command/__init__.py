"""The command line: parse, build the same values as a notebook, call, save. One file a subcommand."""
