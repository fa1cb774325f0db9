"""The command line, one file a command. Start in `main.py`, which also says how to add one."""
