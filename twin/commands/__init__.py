"""The commands, one file each: what a user may give, what is checked at once, what is said at the end.

The files are light. A command imports the code for its work only when it runs, so `twin --help` answers at once. A new
command is a file here and a line in `twin/cli.py`.
"""
