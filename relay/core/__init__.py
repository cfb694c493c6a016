"""The domain, shared by the HTTP service and the worker."""
