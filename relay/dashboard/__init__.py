"""The dashboard: pages for people over what the API offers to programs."""
