"""One file a group of commands: parse, call, print."""
