"""The routes: one module for each subject, from the parsed request to the response."""
