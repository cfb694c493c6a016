"""Measurements. Speeds are told as ratios within one run: absolute times on a shared machine mean nothing."""
