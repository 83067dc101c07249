"""The command line `cosmic`."""
