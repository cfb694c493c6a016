"""What a developer's machine has in place of the world: a store, an upstream, a receiver of callbacks."""
