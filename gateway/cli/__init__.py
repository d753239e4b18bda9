"""The command line: every command of `imagegate`."""
