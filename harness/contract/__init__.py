"""The interface for plugins: features, results, protocols, specs, hooks, and the registry that loads plugins."""
