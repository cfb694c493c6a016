"""Builds the image and proves it: `make image`."""
