"""scrapellm-relay: turns ScrapeLLM's polling API into signed callbacks."""

__version__ = "0.1.0"
