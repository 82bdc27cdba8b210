"""The commands, one file each: what a person may give, what is checked at once, what is said at the end.

The files are light: a command imports what does its work when it runs, so `twin --help` answers at once. A new command
is a file here and a line in `twin/cli.py`.
"""
