"""The settings: their table, their parsers, and how flags and environment become one frozen object."""
