"""The command line: `main` picks a subcommand, each in a module of its own that imports what is heavy when it runs."""
