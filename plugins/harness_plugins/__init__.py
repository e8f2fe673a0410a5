"""The first-party plugins, registered by entry points like third-party plugins."""
