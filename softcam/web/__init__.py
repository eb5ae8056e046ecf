"""The HTTP side: everything that parses a request or writes an answer."""
